//! Real SDKs: a container with a label for a role, and one variable, gets the role's credentials without a further step.

use std::fs;

use enforcer_tests::{
    docker::{Docker, Iptables},
    keeper::Keeper,
    scene::Scene,
};

/// The variable that tells SDKs where to ask.
const ASK: &str = "--env=AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/v2/credentials/self";

/// An SDK, as a container has it.
struct Sdk {
    /// Prints the secret access key.
    script: &'static str,
    /// What it says when it is refused credentials.
    refusal: &'static str,
}

/// The SDK for Python, as Debian has it, which is in `/usr`; and that for Rust.
const SDKS: [Sdk; 2] = [
    Sdk {
        script: r#"exec /usr/bin/python3 -c "import boto3; print(boto3.Session().get_credentials().secret_key)""#,
        refusal: "CredentialRetrievalError",
    },
    Sdk {
        script: "exec /sdk",
        refusal: "Non-success status from HTTP credential provider",
    },
];

/// A running enforcer that knows two roles and no task, then an engine.
fn scene() -> (Scene, Docker) {
    let scene = Scene::builder().role("web").role("batch").start().unwrap();
    let docker = Docker::start(&scene, Iptables::Nft).unwrap();
    (scene, docker)
}

/// Options of a container that has the SDKs, and in a network.
fn options(network: &str) -> [String; 3] {
    let program = Keeper::program("sdk");
    [
        ASK.to_owned(),
        format!("--network={network}"),
        format!("--volume={}:/sdk:ro", program.display()),
    ]
}

/// The option that gives a container a role.
fn label(scene: &Scene, role: &str) -> String {
    format!("--label=enforcer.role-arn={}", scene.role(role).unwrap().role_arn)
}

#[test]
fn an_sdk_gets_the_credentials_of_the_containers_role() {
    let (scene, docker) = scene();
    for sdk in SDKS {
        for (role, network) in [("web", "bridge"), ("batch", "host")] {
            let [ask, network, program] = options(network);
            let options = ["--rm", &ask, &network, &program, &label(&scene, role)];
            let printed = docker.run_script(&options, sdk.script).unwrap();
            assert_eq!(printed.trim(), scene.role(role).unwrap().secret_key);
        }
    }
}

#[test]
fn an_sdk_in_a_container_without_a_label_says_that_there_are_none() {
    let (_scene, docker) = scene();
    for sdk in SDKS {
        let [ask, network, program] = options("bridge");
        let said = docker.run_script(&["--rm", &ask, &network, &program], sdk.script);
        let said = format!("{:#}", said.unwrap_err());
        assert!(said.contains(sdk.refusal), "{said}");
    }
}

#[test]
fn an_sdk_asks_again_while_nobody_can_tell_whose_its_container_is() {
    let (mut scene, docker) = scene();
    scene
        .configure(|text| {
            text.replace(
                "[sources.docker]",
                "[sources]\nwait-milliseconds = 100\n\n[sources.docker]",
            )
        })
        .unwrap();
    for (number, sdk) in SDKS.iter().enumerate() {
        let name = format!("sdk-{number}");
        // It begins when somebody has opened the other end.
        let gate = scene.path(&format!("/run/{name}"));
        nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let [ask, network, program] = options("bridge");
        let gated = format!("--volume=/run/{name}:/gate");
        let named = format!("--name={name}");
        let label = label(&scene, "web");
        let options = ["--detach", &named, &ask, &network, &program, &gated, &label];
        docker
            .run_script(&options, &format!("read -r </gate; {}", sdk.script))
            .unwrap();

        docker.hold().unwrap();
        scene.enforcer().restart().unwrap();
        fs::write(&gate, "\n").unwrap();
        let unresolved = scene
            .audit()
            .wait_for(|record| record.is_endpoint("deny", "unresolved"));
        unresolved.unwrap();
        docker.go_on().unwrap();

        docker.call(["wait", &name]).unwrap();
        let printed = docker.call(["logs", &name]).unwrap();
        assert_eq!(printed.trim(), scene.role("web").unwrap().secret_key);
    }
}
