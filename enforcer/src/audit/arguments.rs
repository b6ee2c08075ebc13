//! Command lines without secrets. Pure.
//!
//! Nobody can tell a secret for sure, so whatever looks like one is left out: what is said to be a password, a token or a
//! key, users in URLs, credential IDs, and long words that only machines write. Rather too much than too little.

/// What stands for what is left out.
const HIDDEN: &str = "***";

/// Names of secrets have one of these in them.
const NAMES: [&str; 12] = [
    "auth",
    "bearer",
    "cookie",
    "credential",
    "key",
    "pass",
    "private",
    "pwd",
    "secret",
    "session",
    "signature",
    "token",
];

/// Options that are short for a password.
const PASSWORD: &str = "-p";
/// Options that are short for a user, who may have a password behind a colon.
const USERS: [&str; 3] = ["-u", "-U", "--user"];

/// What comes before a credential ID in a path.
const CREDENTIALS: &str = "credentials/";

/// From how many characters on a word of letters and digits is one that only machines write.
const LONG: usize = 20;

/// Arguments, one after the other: what one is may follow from the one before it.
#[derive(Debug, Default)]
pub(super) struct Redaction {
    next: Next,
}

/// What the last word says of the next one.
#[derive(Debug, Default)]
enum Next {
    /// Nothing.
    #[default]
    Anything,
    /// It is a secret.
    Secret,
    /// It is a user.
    User,
}

// === impl Redaction ===

impl Redaction {
    /// The next argument, without what looks like a secret. What follows the name of a secret within an argument, as in a
    /// header or a script, is left out with all the rest.
    pub(super) fn argument(&mut self, argument: &str) -> String {
        let mut shown = String::with_capacity(argument.len());
        for word in argument.split_inclusive(char::is_whitespace) {
            match std::mem::take(&mut self.next) {
                Next::Secret => {
                    shown.push_str(HIDDEN);
                    return shown;
                }
                Next::User if word.contains(':') => shown.push_str(HIDDEN),
                Next::User | Next::Anything => self.word(word, &mut shown),
            }
        }
        shown
    }

    fn word(&mut self, word: &str, shown: &mut String) {
        let bare = word.trim_end();
        if USERS.contains(&bare) {
            self.next = Next::User;
        } else if bare == PASSWORD || (bare.starts_with('-') && !bare.contains(['=', ':']) && is_secrets_name(bare)) {
            self.next = Next::Secret;
        } else if bare.starts_with(PASSWORD) {
            shown.extend([PASSWORD, HIDDEN]);
            return;
        }
        let Some(value) = value(word) else {
            without_machine_words(&without_user(word), shown);
            return;
        };
        let (name, value) = word.split_at(value);
        without_machine_words(&without_user(name), shown);
        if value.trim().is_empty() {
            shown.push_str(value);
            self.next = Next::Secret;
        } else {
            shown.push_str(HIDDEN);
        }
    }
}

/// Where the value of a secret that a word names begins.
fn value(word: &str) -> Option<usize> {
    let mut name = 0;
    let named = word.match_indices(['=', ':']).find_map(|(at, separator)| {
        let is_named = word.get(name..at).is_some_and(is_secrets_name);
        name = at + separator.len();
        is_named.then_some(name)
    });
    let in_path = word.find(CREDENTIALS).map(|at| at + CREDENTIALS.len());
    named.into_iter().chain(in_path).min()
}

fn is_secrets_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    NAMES.iter().any(|secret| name.contains(secret))
}

/// A word without the user of a URL.
fn without_user(word: &str) -> String {
    let user = word.split_once("://").and_then(|(scheme, rest)| {
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (_, host) = host.rsplit_once('@')?;
        Some(format!("{scheme}://{HIDDEN}@{host}{path}"))
    });
    user.unwrap_or_else(|| word.to_owned())
}

/// Adds a text without its words that only machines write, such as access keys and UUIDs.
fn without_machine_words(text: &str, shown: &mut String) {
    let is_of_word = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '+');
    for part in text.split_inclusive(|character| !is_of_word(character)) {
        let word = part.trim_end_matches(|character| !is_of_word(character));
        let has = |kind: fn(&u8) -> bool| word.as_bytes().iter().any(kind);
        if word.len() >= LONG && has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic) {
            shown.push_str(HIDDEN);
            shown.push_str(part.get(word.len()..).unwrap_or_default());
        } else {
            shown.push_str(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, proptest};

    use super::Redaction;

    fn shown(arguments: &[&str]) -> Vec<String> {
        let mut redaction = Redaction::default();
        arguments.iter().map(|argument| redaction.argument(argument)).collect()
    }

    #[test]
    fn what_says_nothing_secret_is_shown() {
        for arguments in [
            &["/usr/bin/python3", "-u", "-m", "http.server", "8080"][..],
            &["curl", "-s", "http://169.254.169.254/latest/meta-data/iam/security"],
            &["sh", "-c", "exec nginx -g 'daemon off;' --port=80"],
            &["java", "-Xmx512m", "-jar", "/opt/app-1.2.3/lib/service.jar"],
        ] {
            assert_eq!(shown(arguments), arguments);
        }
    }

    #[test]
    fn what_is_said_to_be_a_secret_is_not_shown() {
        for (arguments, expected) in [
            (&["x", "--password=hunter2"][..], &["x", "--password=***"][..]),
            (&["x", "--api-key", "abc", "y"], &["x", "--api-key", "***", "y"]),
            (&["mysql", "-phunter2", "db"], &["mysql", "-p***", "db"]),
            (&["mysql", "-p", "hunter2"], &["mysql", "-p", "***"]),
            (
                &["env", "AWS_SECRET_ACCESS_KEY=a/b", "x"],
                &["env", "AWS_SECRET_ACCESS_KEY=***", "x"],
            ),
            (
                &["curl", "-H", "Authorization: Bearer abc def", "u"],
                &["curl", "-H", "Authorization: ***", "u"],
            ),
            (&["curl", "-u", "me:hunter2"], &["curl", "-u", "***"]),
            (&["curl", "http://me:hunter2@host/x"], &["curl", "http://***@host/x"]),
            (
                &["curl", "http://host/?a=b&token=abc"],
                &["curl", "http://host/?a=b&token=***"],
            ),
            (&["x", r#"{"password":"hunter2"}"#], &["x", r#"{"password":***"#]),
            (&["sh", "-c", "x --token abc; y"], &["sh", "-c", "x --token ***"]),
        ] {
            assert_eq!(shown(arguments), expected);
        }
    }

    #[test]
    fn words_that_only_machines_write_are_not_shown() {
        for (argument, expected) in [
            (
                "http://169.254.170.2/v2/credentials/short",
                "http://169.254.170.2/v2/credentials/***",
            ),
            (
                "http://169.254.170.2/v1/credentials?id=short",
                "http://169.254.170.2/v1/credentials?id=***",
            ),
            ("x/d8f91d60-f0c6-4160-b32b-3f61089b625a/y", "x/***/y"),
            ("AKIAIOSFODNN7EXAMPLE", "***"),
        ] {
            assert_eq!(shown(&[argument]), [expected]);
        }
    }

    proptest! {
        #[test]
        fn a_password_is_nowhere_however_it_is_given(secret in "[a-zA-Z0-9/+:@=-]{6,60}", text in "[ -~]{0,20}") {
            let ways = [
                vec![format!("--password={secret}"), text.clone()],
                vec!["--password".to_owned(), secret.clone()],
                vec![format!("{text} PASSWORD={secret}")],
                vec![format!("X-Auth-Token: {secret} {text}")],
            ];
            for way in ways {
                let arguments: Vec<_> = way.iter().map(String::as_str).collect();
                let shown = shown(&arguments).join(" ");
                prop_assert!(!shown.contains(&secret) || text.contains(&secret), "{}", shown);
            }
        }
    }
}
