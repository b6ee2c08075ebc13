//! What a program does that uses the AWS SDK for Rust: asks for its credentials by what its environment says, and nothing
//! else. Prints the secret access key; what goes wrong is said as the SDK says it.

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use aws_config::{ecs::EcsCredentialsProvider, provider_config::ProviderConfig};
use aws_credential_types::provider::ProvideCredentials;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // The endpoint speaks no TLS, and the SDK without it is built in half the time.
    let client = aws_smithy_http_client::Builder::new().build_http();
    let config = ProviderConfig::without_region().with_http_client(client);
    let provider = EcsCredentialsProvider::builder().configure(&config).build();
    match provider.provide_credentials().await {
        Ok(credentials) => match writeln!(io::stdout(), "{}", credentials.secret_access_key()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            let mut cause: Option<&dyn Error> = Some(&error);
            while let Some(error) = cause {
                eprintln!("{error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}
