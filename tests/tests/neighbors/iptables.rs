//! The rules the ECS agent's service puts in front of the agent (`iptables` as it calls it), and what a container with
//! `CAP_NET_ADMIN` may write.

use enforcer_tests::{
    docker::{Docker, Iptables},
    scene::Scene,
    topology::write_sysctl,
};

use crate::{assert_has_no_metadata_service, assert_has_only_its_own_credentials};

/// What `ecs-init` runs at the start of the agent.
const AGENT_RULES: [&str; 4] = [
    "-t nat -A PREROUTING -p tcp -d 169.254.170.2 --dport 80 -j DNAT --to-destination 127.0.0.1:51679",
    "-t filter -I INPUT --dst 127.0.0.0/8 ! --src 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",
    "-t filter -I INPUT -p tcp --dport 51678 ! -i lo -j DROP",
    "-t nat -A OUTPUT -p tcp -d 169.254.170.2 --dport 80 -j REDIRECT --to-ports 51679",
];

fn iptables(scene: &Scene, program: &str, rule: &str) {
    let output = scene.host_command(program).args(rule.split(' ')).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn write_agent_rules(scene: &Scene, program: &str) {
    scene
        .host_network()
        .run(|| write_sysctl("ipv4/conf/all/route_localnet", "1"))
        .unwrap();
    for rule in AGENT_RULES {
        iptables(scene, program, rule);
    }
}

#[test]
fn steering_wins_over_the_agents_rules() {
    for program in ["/usr/sbin/iptables-nft", "/usr/sbin/iptables-legacy"] {
        let mut scene = Scene::builder().task("web").task("batch").prepare().unwrap();
        write_agent_rules(&scene, program);
        scene.enforcer().start().unwrap();
        let mut bridged = scene.bridge_container("web").unwrap();
        let mut host = scene.host_container("batch").unwrap();
        for (container, task) in [(&mut bridged, "web"), (&mut host, "batch")] {
            assert_has_no_metadata_service(&mut scene, container, task);
            assert_has_only_its_own_credentials(&scene, container, task);
        }
    }
}

#[test]
fn rules_written_under_a_running_enforcer_change_nothing() {
    let mut scene = Scene::builder().task("web").task("batch").start().unwrap();
    let docker = Docker::start(&scene, Iptables::Nft).unwrap();
    let mut web = docker.run("web", "bridge", &[]).unwrap();
    write_agent_rules(&scene, "/usr/sbin/iptables-nft");
    assert_has_no_metadata_service(&mut scene, &mut web, "web");
    assert_has_only_its_own_credentials(&scene, &mut web, "web");
}
