//! The enforcer in front of an ECS agent.

use enforcer_tests::{
    agent::{Agent, AgentTask},
    scene::Scene,
};

#[test]
fn a_container_on_the_ports_of_an_agent_that_is_not_there_is_not_the_agent() {
    let scene = Scene::builder()
        .in_front_of_ecs_agent()
        .task("web")
        .task("batch")
        .start()
        .unwrap();
    let web = scene.task("web").unwrap();
    let known = AgentTask {
        arn: "arn:aws:ecs:us-west-2:111122223333:task/shop/web".to_owned(),
        containers: Vec::new(),
        unaware: 0,
        internal: Vec::new(),
        credential_id: web.credential_id.clone(),
        credentials: "{}".to_owned(),
    };
    let mut container = scene.bridge_container("web").unwrap();
    let mut thief = scene.in_host_container("batch", Agent::start).unwrap();
    thief.know(&known).unwrap();
    assert_eq!(container.get(&web.path()).unwrap().status, 500);
    drop(thief);
    let mut agent = scene.on_host(Agent::start).unwrap();
    agent.know(&known).unwrap();
    let answer = container.get(&web.path()).unwrap();
    assert_eq!((answer.status, answer.body_text().as_str()), (200, "{}"));
}
