//! Supervision: the tasks without which the service does not work. One that ends early ends the process, loudly.

use std::error::Error;

use tokio::task::{JoinError, JoinSet};

/// The critical tasks. Dropping it stops them.
#[derive(Debug, Default)]
pub struct Supervisor {
    tasks: JoinSet<(&'static str, Result<(), BoxError>)>,
}

type BoxError = Box<dyn Error + Send + Sync>;

/// A critical task is not running any more.
#[derive(Debug, thiserror::Error)]
pub enum TaskEnded {
    /// It failed.
    #[error("{task} failed: {source}")]
    Failed {
        /// Its name.
        task: &'static str,
        /// Why.
        source: BoxError,
    },
    /// It came to an end that nobody asked for.
    #[error("{task} ended although nobody asked it to")]
    Early {
        /// Its name.
        task: &'static str,
    },
    /// It panicked.
    #[error("a critical task panicked: {source}")]
    Panicked {
        /// What the runtime says.
        source: JoinError,
    },
}

// === impl Supervisor ===

impl Supervisor {
    /// Spawns a task that has to run until it is told to stop.
    pub fn spawn<E>(&mut self, name: &'static str, task: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        E: Error + Send + Sync + 'static,
    {
        self.tasks
            .spawn(async move { (name, task.await.map_err(BoxError::from)) });
    }

    /// Waits until the first task ends. Without tasks it waits forever.
    pub async fn first_end(&mut self) -> TaskEnded {
        match self.tasks.join_next().await {
            Some(Ok((task, Ok(())))) => TaskEnded::Early { task },
            Some(Ok((task, Err(source)))) => TaskEnded::Failed { task, source },
            Some(Err(source)) => TaskEnded::Panicked { source },
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, io};

    use super::{Supervisor, TaskEnded};

    #[tokio::test]
    async fn a_task_that_ends_is_named_with_its_reason() {
        let mut supervisor = Supervisor::default();
        supervisor.spawn("reader", async { Err(io::Error::other("ring is gone")) });
        assert_eq!(supervisor.first_end().await.to_string(), "reader failed: ring is gone");
        supervisor.spawn("listener", async { Ok::<_, Infallible>(()) });
        assert!(matches!(
            supervisor.first_end().await,
            TaskEnded::Early { task: "listener" }
        ));
    }
}
