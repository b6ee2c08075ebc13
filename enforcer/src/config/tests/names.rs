//! Names that a configuration may not give.

use super::{TASK, error_of};

#[test]
fn no_task_is_called_as_containers_are() {
    for name in ["docker/web", "oci/container/default/web", "kubernetes/shop/web/uid"] {
        let error = error_of(&TASK.replace("\"web\"", &format!("{name:?}")));
        assert!(error.contains(name) && error.contains("take another one"), "{error}");
    }
}

#[test]
fn what_is_no_arn_is_no_roles() {
    let role = |arn: &str| format!("[[role]]\narn = {arn:?}\ncredentials-file = \"/etc/enforcer/x.json\"");
    let task = |arn: &str| TASK.replace("\"arn:aws:iam::111122223333:role/web\"", &format!("{arn:?}"));
    for arn in ["", " ", "a b", "a\n"] {
        for text in [role(arn), task(arn)] {
            let error = error_of(&text);
            assert!(error.contains("is no role's ARN"), "{error}");
        }
    }
}
