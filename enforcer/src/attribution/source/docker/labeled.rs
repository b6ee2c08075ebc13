//! A container whose labels name a role. Its image has labels, too, and the engine tells of them as if they were the
//! container's: what counts is only what whoever made the container has set. Pure.

use super::{
    super::told::Named,
    container::{Container, Labels},
    statement::forged,
};
use crate::attribution::{Entry, SourceKind};

/// What is to be said of it is known once its image has been asked for.
pub(super) struct Labeled {
    /// The image's ID.
    pub(super) image: String,
    role_arn: String,
    task: Option<String>,
    /// What is to be said without labels.
    plain: Entry,
}

// === impl Labeled ===

impl Labeled {
    /// A container about which this is to be said without labels; `None` if none names a role.
    pub(super) fn new(container: &Container<'_>, plain: &Entry) -> Option<Self> {
        let labels = container.config.labels.as_ref()?;
        let role_arn = labels.role_arn.as_deref()?;
        Named::new(None, Some(role_arn)).role_arn()?;
        Some(Self {
            image: container.image.clone().into_owned(),
            role_arn: role_arn.to_owned(),
            task: labels.task.as_deref().map(str::to_owned),
            plain: plain.clone(),
        })
    }

    /// What is to be said, given the labels of its image; `None` if there is no such image, which may have set any.
    pub(super) fn beside(self, image: Option<&Labels<'_>>) -> Entry {
        let Some(image) = image else {
            let why = "its image is gone, and may have been what names the role";
            return forged(self.plain, why);
        };
        if image.role_arn.as_deref() == Some(&*self.role_arn) {
            return forged(self.plain, "it is its image that names the role");
        }
        let task = self.task.as_deref().filter(|task| image.task.as_deref() != Some(task));
        let named = Named::new(task, Some(&self.role_arn));
        Entry {
            task: named.task(SourceKind::Docker).unwrap_or(self.plain.task),
            role_arn: named.role_arn(),
            ..self.plain
        }
    }
}
