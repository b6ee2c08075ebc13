//! Command lines without secrets. Pure.
//!
//! Nobody can tell a secret for sure, so whatever looks like one is left out: what is said to be a password, a token or a
//! key, users in URLs, credential IDs, and long words that only machines write. Rather too much than too little.

use std::ops::Range;

use percent_encoding::percent_decode_str;

/// What stands for what is left out.
const HIDDEN: &str = "***";

/// Names of secrets have one of these in them.
const NAMES: [&str; 12] = [
    "auth",
    "bearer",
    "cookie",
    "cred",
    "key",
    "pass",
    "private",
    "pw",
    "secret",
    "session",
    "signature",
    "token",
];

/// Words after which a secret comes, also where they are no options.
const ANNOUNCING: [&str; 4] = ["auth", "bearer", "passwd", "password"];

/// Options that are short for a password.
const PASSWORDS: [&str; 2] = ["-p", "-P"];
/// Options for a user, who may have a password behind a colon. Short ones may come with others, and with the user.
const USERS: [&str; 2] = ["--user", "--proxy-user"];
const SHORT_USERS: [char; 2] = ['u', 'U'];

/// What comes before a credential ID in a path.
const CREDENTIALS: &str = "credentials/";
/// What comes before a container's ID in a path of the ECS agent's, and the address that its paths are at.
const METADATA: [&str; 2] = ["/v3/", "/v4/"];
const AGENT: &str = "169.254.170.2";
/// What the credential ID is called in a query.
const ID: &str = "id";

/// How often a word may be percent-encoded to be seen through: once more than whoever takes such paths decodes them.
const ENCODINGS: usize = 3;

/// From how many characters on a word of letters and digits is one that only machines write.
const LONG: usize = 20;
/// In how many characters of base64 there is at least one capital after a small letter.
const HUMPS: usize = 10;
/// The same for those, and digits beside letters.
const CHANGES: usize = 5;

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
    /// The next argument, without what looks like a secret. What follows a secret within an argument, as in a header or a
    /// script, is left out with it: it may be more of the same.
    pub(super) fn argument(&mut self, argument: &str) -> String {
        let mut shown = String::with_capacity(argument.len());
        for word in argument.split_inclusive(char::is_whitespace) {
            let (rest, is_secret) = match std::mem::take(&mut self.next) {
                Next::Secret => (word, true),
                Next::User if word.contains(':') => (word, true),
                Next::User | Next::Anything => self.word(word, &mut shown),
            };
            if is_secret {
                shown.push_str(HIDDEN);
                return shown;
            }
            without_machine_words(&without_user(rest), &mut shown);
        }
        shown
    }

    /// The same for an argument that was cut off: the beginning of its last word does not tell whether that is a secret.
    pub(super) fn cut_argument(&mut self, argument: &str) -> String {
        let cut = argument.rsplit(char::is_whitespace).next().unwrap_or(argument);
        let mut shown = self.argument(argument.strip_suffix(cut).unwrap_or_default());
        if !shown.ends_with(HIDDEN) {
            shown.push_str(HIDDEN);
        }
        shown
    }

    /// Shows the beginning of a word that is no secret for sure, and tells the rest, and whether that is one.
    fn word<'a>(&mut self, word: &'a str, shown: &mut String) -> (&'a str, bool) {
        let bare = word.trim_end();
        let option = bare.strip_prefix('-');
        if ANNOUNCING.contains(&&*bare.to_ascii_lowercase())
            || PASSWORDS.contains(&bare)
            || (option.is_some() && !bare.contains(['=', ':']) && is_secrets_name(bare))
        {
            self.next = Next::Secret;
            // What is called like a secret may be one, behind a short option.
            let attached = attached(bare).filter(|at| *at < bare.len());
            let Some((known, secret)) = attached.and_then(|at| word.split_at_checked(at)) else {
                return (word, false);
            };
            shown.push_str(known);
            return (secret, true);
        }
        let secret = value(word).into_iter().chain(attached(word)).min();
        // What follows a user may be of the password still.
        let secret = secret.map(|at| user(word).map_or(at, |user| user.start.min(at)));
        if let Some((known, secret)) = secret.and_then(|at| word.split_at_checked(at)) {
            without_machine_words(known, shown);
            let is_given = !secret.trim().is_empty();
            if !is_given {
                self.next = Next::Secret;
            }
            return (secret, is_given);
        }
        let short = option.filter(|option| !option.starts_with('-'));
        if USERS.contains(&bare) || short.is_some_and(|short| short.ends_with(SHORT_USERS)) {
            self.next = Next::User;
        }
        (word, false)
    }
}

/// Where a secret begins that is given in one word with its option.
fn attached(word: &str) -> Option<usize> {
    let password = PASSWORDS.iter().find(|option| word.starts_with(*option));
    let user = || {
        let is_short = word.starts_with('-') && !word.starts_with("--");
        let short = || word.find(SHORT_USERS).filter(|_| is_short).map(|at| at + 1);
        let long = USERS.iter().find(|option| word.starts_with(*option));
        let after = long.map(|option| option.len() + "=".len()).or_else(short)?;
        word.get(after..)?.contains(':').then_some(after)
    };
    password.map(|option| option.len()).or_else(user)
}

/// Where the value of a secret that a word names begins. Percent-encoded names count: nothing is shown from there on.
fn value(word: &str) -> Option<usize> {
    let plain = decoded(word);
    let mut name = 0;
    let named = plain.match_indices(['=', ':']).find_map(|(at, separator)| {
        let is_named = plain.get(name..at).is_some_and(is_secrets_name);
        name = at + separator.len();
        is_named.then_some(name)
    });
    let secret = named.into_iter().chain(in_path(&plain)).min()?;
    Some(word.find('%').map_or(secret, |encoded| encoded.min(secret)))
}

/// Where an ID begins in a path, written small.
fn in_path(word: &str) -> Option<usize> {
    let after = |from: usize, what: &str| Some(from + word.get(from..)?.find(what)? + what.len());
    let agent = after(0, AGENT);
    let metadata = METADATA.iter().filter_map(|path| after(agent?, path));
    after(0, CREDENTIALS).into_iter().chain(metadata).min()
}

/// A word without percent-encoding, and small. Up to the first `%` it is as long as before.
fn decoded(word: &str) -> String {
    let mut word = word.to_ascii_lowercase();
    for _ in 0..ENCODINGS {
        word = percent_decode_str(&word).decode_utf8_lossy().to_ascii_lowercase();
    }
    word
}

fn is_secrets_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let is_of_word = |character: char| character.is_alphanumeric() || matches!(character, '-' | '_');
    let mut words = name
        .split(|character| !is_of_word(character))
        .filter(|word| !word.is_empty());
    words.next_back() == Some(ID) || NAMES.iter().any(|secret| name.contains(secret))
}

/// A user with a password, as in URLs. Either may have any character in it.
fn user(word: &str) -> Option<Range<usize>> {
    let end = word.rfind('@')?;
    let user = word.get(..end).filter(|user| user.contains(':'))?;
    Some(user.find("://").map_or(0, |at| at + "://".len())..end)
}

fn without_user(word: &str) -> String {
    let mut word = word.to_owned();
    if let Some(user) = user(&word) {
        word.replace_range(user, HIDDEN);
    }
    word
}

/// Adds a text without its words that only machines write, such as access keys and UUIDs.
fn without_machine_words(text: &str, shown: &mut String) {
    let is_of_blob = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '+' | '/');
    for part in text.split_inclusive(|character| !is_of_blob(character)) {
        let blob = part.trim_end_matches(|character| !is_of_blob(character));
        if is_blob(blob) {
            shown.push_str(HIDDEN);
            shown.push_str(part.get(blob.len()..).unwrap_or_default());
            continue;
        }
        for part in part.split_inclusive('/') {
            let word = part.trim_end_matches(|character| !is_of_blob(character) || character == '/');
            let has = |kind: fn(&u8) -> bool| word.as_bytes().iter().any(kind);
            if word.len() >= LONG && has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic) {
                shown.push_str(HIDDEN);
                shown.push_str(part.get(word.len()..).unwrap_or_default());
            } else {
                shown.push_str(part);
            }
        }
    }
}

/// Whether it looks like base64: unlike in a path, its characters are of another kind than the one before all the time.
fn is_blob(text: &str) -> bool {
    let bytes = || text.bytes().filter(u8::is_ascii_alphanumeric);
    let pairs = || bytes().zip(bytes().skip(1));
    let humps = pairs().filter(|(one, next)| one.is_ascii_lowercase() && next.is_ascii_uppercase());
    let (humps, numbers) = (
        humps.count(),
        pairs()
            .filter(|(one, next)| one.is_ascii_digit() != next.is_ascii_digit())
            .count(),
    );
    let is_often = |changes: usize, of: usize| changes > 0 && changes * of >= text.len();
    text.len() >= LONG
        && !text.contains(['-', '_'])
        && is_often(humps, HUMPS)
        && numbers > 0
        && is_often(humps + numbers, CHANGES)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

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
            &[
                "/opt/MyApplication2/Releases/17/bin/server",
                "-v",
                "--config=/etc/MyApplication2/main.toml",
            ],
            &[
                "agetty",
                "--noclear",
                "/run/systemd/getty@tty1.service",
                "git@host:org/project",
            ],
            &[
                "docker",
                "run",
                "-e",
                "LEVEL=debug",
                "--env=REGION=eu-west-1",
                "registry:5000/image:1",
            ],
            &[
                "date",
                "+%F %T",
                "--instance-id=7",
                "https://api.example.com/v3/items?of=a%20b",
            ],
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
            (&["mysql", "-pw00AAA", "db"], &["mysql", "-p***", "***"]),
            (&["x", "-password", "hunter2"], &["x", "-p***", "***"]),
            (
                &["env", "AWS_SECRET_ACCESS_KEY=a/b", "x"],
                &["env", "AWS_SECRET_ACCESS_KEY=***", "x"],
            ),
            (
                &["curl", "-H", "Authorization: Bearer abc def", "u"],
                &["curl", "-H", "Authorization: ***", "u"],
            ),
            (&["curl", "-u", "me:hunter2", "u"], &["curl", "-u", "***", "u"]),
            (&["curl", "-sSu", "me:hunter2"], &["curl", "-sSu", "***"]),
            (&["curl", "-ume:hunter2"], &["curl", "-u***"]),
            (&["curl", "-sUme:hunter2"], &["curl", "-sU***"]),
            (&["curl", "--user=me:hunter2"], &["curl", "--user=***"]),
            (
                &["curl", "--proxy-user", "me:hunter2"],
                &["curl", "--proxy-user", "***"],
            ),
            (&["curl", "--proxy-user=me:hunter2"], &["curl", "--proxy-user=***"]),
            (
                &["curl", "-HAuthorization:Bearer abc def", "u"],
                &["curl", "-HAu***", "u"],
            ),
            (
                &["curl", "--header=X-Api-Key: abc def", "u"],
                &["curl", "--header=X-Api-Key: ***", "u"],
            ),
            (&["curl", "-H", "X: Bearer abc"], &["curl", "-H", "X: Bearer ***"]),
            (&["curl", "--cookie", "sid=abc", "u"], &["curl", "--cookie", "***", "u"]),
            (&["x", "--token=abc"], &["x", "--token=***"]),
            (&["sqlcmd", "-P", "hunter2"], &["sqlcmd", "-P", "***"]),
            (&["redis-cli", "AUTH", "hunter2"], &["redis-cli", "AUTH", "***"]),
            (
                &["docker", "-e", "DB_PASSWORD=abc"],
                &["docker", "-e", "DB_PASSWORD=***"],
            ),
            (&["docker", "--env=MYSQL_PWD=abc"], &["docker", "--env=MYSQL_PWD=***"]),
            (&["sh", "-c", "TOKEN='a b' x"], &["sh", "-c", "TOKEN=***"]),
            (&["x", "postgres://me:hun/ter2@db/x"], &["x", "postgres://***@db/x"]),
            (&["x", "amqp://a:b@one,amqp://a:b@two"], &["x", "amqp://***@two"]),
            (&["rsync", "me:hunter2@host"], &["rsync", "***@host"]),
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
            (
                "/var/lib/docker/overlay2/0f1e2d3c4b5a69788796a5b4c3d2e1f0/Merged",
                "/var/lib/docker/overlay2/***/Merged",
            ),
            ("AKIAIOSFODNN7EXAMPLE", "***"),
            ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "***"),
            ("x=Zm9v/YmFy+IGJhei/BxdXV4MQ==", "x=***=="),
            ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTYifQ.x", "***.***.x"),
        ] {
            assert_eq!(shown(&[argument]), [expected]);
        }
    }

    #[test]
    fn a_credential_id_is_not_shown_however_its_path_is_written() {
        for (argument, expected) in [
            ("169.254.170.2/v2%2fcredentials%2fleak-abc", "169.254.170.2/v2***"),
            ("169.254.170.2/v2%252Fcredentials%252Fleak-abc", "169.254.170.2/v2***"),
            (
                "169.254.170.2/v2%25252fcredentials%25252fleak-abc",
                "169.254.170.2/v2***",
            ),
            ("http://h/v2/%63redentials/leak-abc", "http://h/v2/***"),
            ("http://h/v2/credential%73/leak-abc", "http://h/v2/credential***"),
            ("http://h/v2/credentials/%6ceak-abc", "http://h/v2/credentials/***"),
            ("http://h/%ff/v2/credentials%2fleak-abc", "http://h/***"),
            ("http://h/V2/Credentials/leak-abc", "http://h/V2/Credentials/***"),
            ("http://h/v2//credentials//./leak-abc", "http://h/v2//credentials/***"),
            ("http://h/v1/credentials?%69d=leak-abc", "http://h/v1/credentials?***"),
            ("http://h/v1/%63redentials?id=leak-abc", "http://h/v1/***"),
            ("http://h/V1/CREDENTIALS?ID=leak-abc", "http://h/V1/CREDENTIALS?ID=***"),
            (
                "http://h/v1/credentials?x=1&id=leak-abc",
                "http://h/v1/credentials?x=***",
            ),
            ("id=leak-abc", "id=***"),
            ("x&%69d=leak-abc", "x&***"),
            (r#"{"id":"leak-abc"}"#, r#"{"id":***"#),
            ("169.254.170.2/v3/leak-abc/task", "169.254.170.2/v3/***"),
            ("http://169.254.170.2:80/V4/leak-abc", "http://169.254.170.2:80/V4/***"),
            ("http://169.254.170.2/v4%2fleak-abc", "http://169.254.170.2/v4***"),
        ] {
            assert_eq!(shown(&[argument]), [expected]);
        }
    }

    proptest! {
        #[test]
        fn a_credential_id_is_nowhere_however_its_path_is_encoded(encoded in any::<u64>()) {
            let path = "/v2/credentials/".bytes().enumerate().map(|(index, byte)| {
                if encoded >> index & 1 == 1 { format!("%{byte:02X}") } else { char::from(byte).to_string() }
            });
            let before = format!("http://169.254.170.2{}", path.collect::<String>());
            let shown = shown(&[&format!("{before}leak")]).concat();
            prop_assert!(shown.strip_suffix("***").is_some_and(|shown| before.starts_with(shown)), "{}", shown);
        }

        #[test]
        fn a_password_is_nowhere_however_it_is_given(secret in "[a-zA-Z0-9/+:@=-]{6,60}", text in "[ -~]{0,20}") {
            let ways = [
                vec![format!("--password={secret}"), text.clone()],
                vec!["--password".to_owned(), secret.clone()],
                vec![format!("{text} PASSWORD={secret}")],
                vec![format!("X-Auth-Token: {secret} {text}")],
                vec![format!("-HAuthorization:Bearer {secret}"), text.clone()],
                vec![format!("-ume:{secret}")],
                vec![format!("--user=me:{secret}")],
                vec![format!("-p{secret}")],
                vec![format!("scheme://me:{secret}@host/")],
            ];
            for way in ways {
                let arguments: Vec<_> = way.iter().map(String::as_str).collect();
                let shown = shown(&arguments).join(" ");
                prop_assert!(!shown.contains(&secret) || text.contains(&secret), "{}", shown);
            }
        }
    }
}
