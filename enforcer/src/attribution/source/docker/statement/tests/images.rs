//! What labels count of a container whose image has labels, too.

use serde_json::{Value, json};

use super::{
    super::super::container::{Image, Labels},
    Driver, ROLE, container, is_forged, rules, say,
};
use crate::attribution::{Entry, source::docker::statement::Saying};

/// What is said of a container with labels for task and role, given the image as the engine tells of it.
fn said(image: Option<&Value>) -> Entry {
    let labels = json!({"enforcer.role-arn": ROLE, "enforcer.task": "shop"});
    let Saying::Labeled(labeled) = say(&rules(Driver::Systemd), &container(&labels, &json!([]), "")) else {
        panic!("the image is not asked for");
    };
    let text = image.map(Value::to_string);
    let image: Option<Image<'_>> = text.as_deref().map(|text| serde_json::from_str(text).unwrap());
    let labels: Option<Labels<'_>> = image.map(Image::labels);
    labeled.beside(labels.as_ref())
}

#[test]
fn an_image_that_names_the_role_gives_its_containers_none() {
    for image in [
        Some(json!({"Config": {"Labels": {"enforcer.role-arn": ROLE}}})),
        Some(json!({"Config": {"Labels": {"enforcer.role-arn": ROLE, "enforcer.task": "shop"}}})),
        None,
    ] {
        let entry = said(image.as_ref());
        assert_eq!(
            (entry.task.as_str(), entry.role_arn.as_deref()),
            ("docker/shop-web", None)
        );
        assert!(is_forged(&entry), "{image:?}");
    }
}

#[test]
fn what_is_set_over_an_images_labels_counts() {
    let shop = format!("docker/task/shop@{ROLE}");
    for (image, task) in [
        (json!({}), &*shop),
        (json!({"Config": null}), &shop),
        (json!({"Config": {"Labels": null}}), &shop),
        (
            json!({"Config": {"Labels": {"enforcer.role-arn": "arn:other", "enforcer.task": "other"}}}),
            &shop,
        ),
        (
            json!({"Config": {"Labels": {"enforcer.task": "shop"}}}),
            "docker/shop-web",
        ),
    ] {
        let entry = said(Some(&image));
        assert_eq!(
            (entry.task.as_str(), entry.role_arn.as_deref()),
            (task, Some(ROLE)),
            "{image}"
        );
        assert!(!is_forged(&entry));
    }
}

#[test]
fn without_a_role_no_image_is_asked_for() {
    for labels in [
        json!(null),
        json!({"enforcer.task": "shop"}),
        json!({"enforcer.role-arn": "a b"}),
    ] {
        let saying = say(&rules(Driver::Systemd), &container(&labels, &json!([]), ""));
        assert!(matches!(saying, Saying::Entry(_)), "{labels}");
    }
}
