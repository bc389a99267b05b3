//! What is wrong with a file or a declaration, and where.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::de::{DeTable, DeValue};

/// One thing wrong with an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Fault {
    /// Where, as a JSON pointer (RFC 6901); empty for the whole document.
    pub pointer: String,
    /// What was expected and what was found.
    pub message: String,
}

impl Fault {
    /// A fault at `pointer`: `expected` is a noun phrase, `found` is shown after it.
    pub fn new(
        pointer: impl Into<String>,
        expected: impl fmt::Display,
        found: impl fmt::Display,
    ) -> Self {
        Self {
            pointer: pointer.into(),
            message: format!("expected {expected}, found {found}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pointer.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.pointer, self.message)
        }
    }
}

/// A [`Fault`] found in a file, with its line and column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFault {
    /// The file's name as the caller gave it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What was expected and what was found.
    pub message: String,
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}: {}",
            self.file, self.line, self.column, self.message
        )
    }
}

/// All that is wrong with a file, never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct FileFaults(pub Vec<FileFault>);

impl fmt::Display for FileFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

/// Reads a TOML document and then lets `validate` look at the whole of it.
///
/// # Errors
/// Every fault with its place in `text`: a syntax error, an unknown key or a wrong type
/// alone, or else all that `validate` returned.
pub fn parse_toml<T: DeserializeOwned>(
    file: &str,
    text: &str,
    validate: impl FnOnce(&T) -> Vec<Fault>,
) -> Result<T, FileFaults> {
    let value: T = toml::from_str(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        let places = Places::of(file, text);
        FileFaults(vec![places.at_offset(offset, error.message().to_owned())])
    })?;
    let faults = validate(&value);
    if faults.is_empty() {
        return Ok(value);
    }
    let places = Places::of(file, text);
    let located = faults.into_iter();
    let located = located.map(|fault| places.fault(&fault.pointer, fault.message));
    Err(FileFaults(located.collect()))
}

/// The places of a TOML document's values.
#[derive(Debug)]
pub struct Places<'a> {
    file: &'a str,
    text: &'a str,
    /// Nothing where the document cannot be read.
    root: Option<(usize, DeValue<'a>)>,
    /// Where each line begins.
    lines: Vec<usize>,
}

impl<'a> Places<'a> {
    /// The places of a document, which is looked through once.
    pub fn of(file: &'a str, text: &'a str) -> Self {
        let root = DeTable::parse(text).ok();
        let ends = text.match_indices('\n').map(|(end, _)| end + 1);
        Self {
            file,
            text,
            root: root.map(|table| (table.span().start, DeValue::Table(table.into_inner()))),
            lines: std::iter::once(0).chain(ends).collect(),
        }
    }

    /// A message about what stands at a JSON pointer; about its nearest parent where it is
    /// absent.
    pub fn fault(&self, pointer: &str, message: String) -> FileFault {
        self.at_offset(self.offset_of(pointer), message)
    }

    /// The byte where the value at `pointer` starts; of its nearest parent where it is absent.
    fn offset_of(&self, pointer: &str) -> usize {
        let Some((start, root)) = &self.root else {
            return 0;
        };
        let (mut offset, mut value) = (*start, root);
        for segment in pointer.split('/').skip(1) {
            let key = segment.replace("~1", "/").replace("~0", "~");
            let next = match value {
                DeValue::Table(table) => table.get(key.as_str()),
                DeValue::Array(array) => key.parse().ok().and_then(|index: usize| array.get(index)),
                _ => None,
            };
            let Some(next) = next else { break };
            offset = next.span().start;
            value = next.get_ref();
        }
        offset
    }

    fn at_offset(&self, offset: usize, message: String) -> FileFault {
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines[line - 1];
        let before = self.text.get(start..offset).unwrap_or_default();
        FileFault {
            file: self.file.to_owned(),
            line,
            column: before.chars().count() + 1,
            message,
        }
    }
}

/// Reads a JSON document and then lets `validate` look at the whole of it.
///
/// # Errors
/// Every fault with its JSON pointer.
pub fn parse_json<T: DeserializeOwned>(
    bytes: &[u8],
    validate: impl FnOnce(&T) -> Vec<Fault>,
) -> Result<T, Vec<Fault>> {
    // To keep track of the place costs as much as the reading does: what is right is read without.
    let value = match serde_json::from_slice(bytes) {
        Ok(value) => value,
        Err(_) => read_with_places(bytes)?,
    };
    let faults = validate(&value);
    if faults.is_empty() {
        Ok(value)
    } else {
        Err(faults)
    }
}

fn read_with_places<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Vec<Fault>> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value: T = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        vec![Fault {
            pointer: json_pointer(error.path()),
            message: error.inner().to_string(),
        }]
    })?;
    deserializer.end().map_err(|error| {
        vec![Fault {
            pointer: String::new(),
            message: error.to_string(),
        }]
    })?;
    Ok(value)
}

fn json_pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => {
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "only parsed")]
        port: u16,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[expect(dead_code, reason = "only parsed")]
        service: Vec<Inner>,
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let text = "[[service]]\nport = 80\nprot = 3\n";
        let faults = parse_toml::<Outer>("a.toml", text, |_| Vec::new()).unwrap_err();
        assert_eq!(faults.0[0].line, 3);
        assert!(faults.to_string().starts_with("a.toml:3:1: "), "{faults}");
        assert!(faults.to_string().contains("prot"), "{faults}");
    }

    #[test]
    fn a_semantic_fault_is_located_by_its_pointer() {
        let text = "[[service]]\nport = 80\n\n[[service]]\nport = 81\n";
        let faults = parse_toml::<Outer>("a.toml", text, |_| {
            vec![
                Fault::new("/service/1/port", "another port", 81),
                Fault::new("/service/1/absent", "a key", "nothing"),
            ]
        })
        .unwrap_err();
        assert_eq!(
            faults.0[0].to_string(),
            "a.toml:5:8: expected another port, found 81"
        );
        assert_eq!(faults.0[1].line, 4, "an absent key is located at its table");
    }

    #[test]
    fn a_json_type_error_has_its_pointer() {
        let faults =
            parse_json::<Outer>(br#"{"service":[{"port":"x"}]}"#, |_| Vec::new()).unwrap_err();
        assert_eq!(faults[0].pointer, "/service/0/port");
    }
}
