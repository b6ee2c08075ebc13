//! JSON objects out of a stream, one by one: of a list that may be long, or of events that never end. Pure.
//!
//! Only one object is held at a time, so what an engine says takes no more memory than the largest of them may. Larger
//! ones are left out: who puts that much into a container's labels keeps nobody else from being known.

/// The largest object taken: entries of lists and events are of a few KiB.
const MAX_OBJECT_BYTES: usize = 1024 * 1024;

/// Cuts a stream.
#[derive(Debug, Default)]
pub(super) struct Objects {
    /// The beginning of an object that is not complete.
    held: Vec<u8>,
    depth: usize,
    is_too_large: bool,
    in_string: bool,
    is_escaped: bool,
    /// What stands around the objects, apart from commas and space.
    brackets: Brackets,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Brackets {
    #[default]
    None,
    Open,
    Closed,
}

/// What is not a list or sequence of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("that is no list of objects")]
pub(super) struct NoObjects;

// === impl Objects ===

impl Objects {
    /// Takes in a part of the stream, and gives each object that is complete with it to `each`. What is none becomes an
    /// error of the caller's.
    pub(super) fn take<E>(
        &mut self,
        part: &[u8],
        no_objects: impl Fn(NoObjects) -> E,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = part;
        while let Some((byte, behind)) = rest.split_first() {
            if self.depth == 0 {
                self.outside(*byte).map_err(&no_objects)?;
                rest = behind;
                continue;
            }
            let end = rest.iter().position(|byte| self.ends_with(*byte));
            let (inside, behind) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
            self.hold(inside);
            if self.depth == 0 {
                if !std::mem::take(&mut self.is_too_large) {
                    each(&self.held)?;
                }
                self.held.clear();
            }
            rest = behind;
        }
        Ok(())
    }

    fn hold(&mut self, bytes: &[u8]) {
        if self.held.len() + bytes.len() <= MAX_OBJECT_BYTES {
            self.held.extend_from_slice(bytes);
        } else {
            self.is_too_large = true;
        }
    }

    /// Whether what was taken in is a list, from its beginning to its end.
    pub(super) fn is_whole_list(&self) -> bool {
        self.brackets == Brackets::Closed
    }

    fn outside(&mut self, byte: u8) -> Result<(), NoObjects> {
        match (byte, self.brackets) {
            (b'{', Brackets::None | Brackets::Open) => {
                self.held.push(byte);
                self.depth = 1;
            }
            (b'[', Brackets::None) => self.brackets = Brackets::Open,
            (b']', Brackets::Open) => self.brackets = Brackets::Closed,
            (b',', Brackets::Open) => {}
            _ if byte.is_ascii_whitespace() => {}
            _ => return Err(NoObjects),
        }
        Ok(())
    }

    /// Whether the object that a byte is in ends with it.
    const fn ends_with(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
        } else {
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth -= 1,
                _ => {}
            }
        }
        self.depth == 0
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_OBJECT_BYTES, NoObjects, Objects};

    /// The objects in a text that comes in parts of so many bytes, and whether it is a whole list.
    fn cut(text: &str, size: usize) -> Result<(Vec<String>, bool), NoObjects> {
        let (mut objects, mut found) = (Objects::default(), Vec::new());
        for part in text.as_bytes().chunks(size) {
            let keep = |object: &[u8]| {
                found.push(String::from_utf8(object.to_vec()).unwrap());
                Ok(())
            };
            objects.take(part, |problem| problem, keep)?;
        }
        Ok((found, objects.is_whole_list()))
    }

    #[test]
    fn objects_are_found_whatever_parts_they_come_in() {
        let first = r#"{"a":[{"b":"}]"},"\"{[\\"]}"#;
        let list = format!("[{first}, {{}}]\n");
        let events = format!("{first}\n{{}}\r\n");
        for size in [1, 2, 7, 1000] {
            let expected = vec![first.to_owned(), "{}".to_owned()];
            assert_eq!(cut(&list, size), Ok((expected.clone(), true)));
            assert_eq!(cut(&events, size), Ok((expected, false)));
        }
    }

    #[test]
    fn an_unfinished_list_is_no_whole_one() {
        for text in ["", "[", "[{}", "[{}, {"] {
            assert!(!cut(text, 3).unwrap().1, "{text}");
        }
        assert_eq!(cut("[]", 1), Ok((Vec::new(), true)));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "<html>", "null", "[1]", "[]{}", "[][]", "]", r#"["a"]"#, "{},{}", "[[{}]]",
        ] {
            assert_eq!(cut(text, 4), Err(NoObjects), "{text}");
        }
    }

    #[test]
    fn an_object_that_is_too_large_is_left_out_alone() {
        let list = format!(r#"[{{}},{{"a":"{}"}},{{"b":1}}]"#, "x".repeat(MAX_OBJECT_BYTES));
        let others = vec!["{}".to_owned(), r#"{"b":1}"#.to_owned()];
        assert_eq!(cut(&list, 4096), Ok((others, true)));
    }
}
