//! The plain part of TOML, in which long files are written, read in one pass.
//!
//! The parser of all of TOML makes tokens, then events, then a tree, and takes seven times the
//! instructions: for 20,000 real servers most of what an agent does at its start. What is read
//! here is one section: keys without dots or quotes, a value on each line (a basic string without
//! an escape, a decimal integer, a boolean, an array or an inline table of these), comments, and
//! sub-tables one level down. Everything else, and everything that may be wrong, is [`NotPlain`]
//! and left to that parser, which also says what is wrong and where.

use std::fmt;

use serde::Deserialize;
use serde::de::value::{BorrowedStrDeserializer, MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

/// Not plain, or not what was expected. Nobody sees it: the parser of all of TOML decides.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotPlain;

impl fmt::Display for NotPlain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not plain")
    }
}

impl std::error::Error for NotPlain {}

impl de::Error for NotPlain {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

/// Reads a text that is one `[[name]]` section and nothing else. `T` must have no maps in it:
/// a key that stands twice is noticed by what has fields.
pub(crate) fn section<'de, T: Deserialize<'de>>(
    name: &'static str,
    text: &'de str,
) -> Result<T, NotPlain> {
    let mut cursor = Cursor { rest: text };
    let first = cursor.header()?;
    if !first.is_array || first.path != name {
        return Err(NotPlain);
    }
    let section = Section {
        cursor: &mut cursor,
        name,
        sub_table: None,
    };
    let value = T::deserialize(MapAccessDeserializer::new(section))?;
    match cursor.rest {
        "" => Ok(value),
        _ => Err(NotPlain),
    }
}

/// What has not been read yet.
#[derive(Clone, Copy)]
struct Cursor<'de> {
    rest: &'de str,
}

/// `[path]`, or `[[path]]`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Header<'de> {
    path: &'de str,
    is_array: bool,
}

impl<'de> Cursor<'de> {
    fn peek(&self) -> Option<u8> {
        self.rest.as_bytes().first().copied()
    }

    /// Takes the bytes that `fits`, which must all be ASCII.
    fn take(&mut self, fits: impl Fn(u8) -> bool) -> &'de str {
        let bytes = self.rest.as_bytes();
        let end = bytes.iter().position(|byte| !fits(*byte));
        let (taken, rest) = self.rest.split_at(end.unwrap_or(bytes.len()));
        self.rest = rest;
        taken
    }

    fn blanks(&mut self) {
        self.take(|byte| matches!(byte, b' ' | b'\t'));
    }

    fn expect(&mut self, text: &str) -> Result<(), NotPlain> {
        self.rest = self.rest.strip_prefix(text).ok_or(NotPlain)?;
        Ok(())
    }

    /// Takes a comment if there is one, and the end of the line.
    fn end_of_line(&mut self) -> Result<(), NotPlain> {
        self.blanks();
        if self.peek() == Some(b'#') {
            self.take(|byte| matches!(byte, b' '..=b'~' | b'\t'));
        }
        match self.peek() {
            None => Ok(()),
            Some(b'\n') => self.expect("\n"),
            Some(_) => Err(NotPlain),
        }
    }

    /// Goes to the next line that says something, and says how it begins.
    fn next_line(&mut self) -> Result<Option<u8>, NotPlain> {
        loop {
            self.blanks();
            match self.peek() {
                Some(b'\n' | b'#') => self.end_of_line()?,
                begin => return Ok(begin),
            }
        }
    }

    fn key(&mut self) -> Result<&'de str, NotPlain> {
        let key =
            self.take(|byte| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-'));
        self.blanks();
        self.expect("=")?;
        self.blanks();
        match key {
            "" => Err(NotPlain),
            key => Ok(key),
        }
    }

    fn header(&mut self) -> Result<Header<'de>, NotPlain> {
        self.expect("[")?;
        let is_array = self.peek() == Some(b'[');
        if is_array {
            self.expect("[")?;
        }
        let path = self.take(|byte| matches!(byte, b'a'..=b'z' | b'_' | b'.'));
        self.expect(if is_array { "]]" } else { "]" })?;
        self.end_of_line()?;
        Ok(Header { path, is_array })
    }

    fn string(&mut self) -> Result<&'de str, NotPlain> {
        self.expect("\"")?;
        let text = self.take(|byte| matches!(byte, b' ' | b'!' | b'#'..=b'[' | b']'..=b'~'));
        self.expect("\"")?;
        Ok(text)
    }

    fn integer(&mut self) -> Result<i64, NotPlain> {
        let digits = self.take(|byte| byte.is_ascii_digit());
        if digits.len() > 1 && digits.starts_with('0') {
            return Err(NotPlain);
        }
        digits.parse().map_err(|_| NotPlain)
    }
}

/// A value.
impl<'de> de::Deserializer<'de> for &mut Cursor<'de> {
    type Error = NotPlain;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotPlain> {
        match self.peek() {
            Some(b'"') => visitor.visit_borrowed_str(self.string()?),
            Some(b'0'..=b'9') => visitor.visit_i64(self.integer()?),
            Some(b'{') => {
                let mut items = Items::begin(self, "{", "}")?;
                let value = visitor.visit_map(&mut items)?;
                items.end(value)
            }
            Some(b'[') => {
                let mut items = Items::begin(self, "[", "]")?;
                let value = visitor.visit_seq(&mut items)?;
                items.end(value)
            }
            Some(b't') => self.expect("true").and_then(|()| visitor.visit_bool(true)),
            Some(b'f') => self
                .expect("false")
                .and_then(|()| visitor.visit_bool(false)),
            Some(_) | None => Err(NotPlain),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotPlain> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, NotPlain> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, NotPlain> {
        visitor.visit_enum(BorrowedStrDeserializer::new(self.string()?))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// What stands between brackets, with commas between it.
struct Items<'a, 'de> {
    cursor: &'a mut Cursor<'de>,
    close: &'static str,
    is_first: bool,
}

impl<'a, 'de> Items<'a, 'de> {
    fn begin(
        cursor: &'a mut Cursor<'de>,
        open: &'static str,
        close: &'static str,
    ) -> Result<Self, NotPlain> {
        cursor.expect(open)?;
        Ok(Self {
            cursor,
            close,
            is_first: true,
        })
    }

    /// Goes to the next item; whether there is one.
    fn advance(&mut self) -> Result<bool, NotPlain> {
        self.cursor.blanks();
        if self.cursor.rest.starts_with(self.close) {
            return Ok(false);
        }
        if !std::mem::take(&mut self.is_first) {
            self.cursor.expect(",")?;
            self.cursor.blanks();
        }
        Ok(true)
    }

    fn end<T>(mut self, value: T) -> Result<T, NotPlain> {
        if self.advance()? {
            return Err(NotPlain);
        }
        self.cursor.expect(self.close)?;
        Ok(value)
    }
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = NotPlain;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, NotPlain> {
        match self.advance()? {
            true => seed.deserialize(&mut *self.cursor).map(Some),
            false => Ok(None),
        }
    }
}

impl<'de> MapAccess<'de> for Items<'_, 'de> {
    type Error = NotPlain;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, NotPlain> {
        if !self.advance()? {
            return Ok(None);
        }
        let key = self.cursor.key()?;
        seed.deserialize(BorrowedStrDeserializer::new(key))
            .map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, NotPlain> {
        seed.deserialize(&mut *self.cursor)
    }
}

/// The lines of a section and its sub-tables.
struct Section<'a, 'de> {
    cursor: &'a mut Cursor<'de>,
    name: &'static str,
    /// The header of the sub-table whose key was read last.
    sub_table: Option<Header<'de>>,
}

impl<'de> MapAccess<'de> for Section<'_, 'de> {
    type Error = NotPlain;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, NotPlain> {
        let key = match self.cursor.next_line()? {
            None => return Ok(None),
            Some(b'[') => {
                let header = self.cursor.header()?;
                self.sub_table = Some(header);
                let below = header.path.strip_prefix(self.name);
                // One with another dot is the key of nothing.
                below.and_then(|it| it.strip_prefix('.')).ok_or(NotPlain)?
            }
            Some(_) => self.cursor.key()?,
        };
        seed.deserialize(BorrowedStrDeserializer::new(key))
            .map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, NotPlain> {
        let cursor = &mut *self.cursor;
        match self.sub_table {
            None => {
                let value = seed.deserialize(&mut *cursor)?;
                cursor.end_of_line()?;
                Ok(value)
            }
            Some(Header {
                is_array: false, ..
            }) => seed.deserialize(MapAccessDeserializer::new(SubTable { cursor })),
            Some(header) => seed.deserialize(SeqAccessDeserializer::new(SubTables {
                cursor,
                header,
                is_first: true,
            })),
        }
    }
}

/// The lines of a sub-table, up to the next header.
struct SubTable<'a, 'de> {
    cursor: &'a mut Cursor<'de>,
}

impl<'de> MapAccess<'de> for SubTable<'_, 'de> {
    type Error = NotPlain;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, NotPlain> {
        match self.cursor.next_line()? {
            None | Some(b'[') => Ok(None),
            Some(_) => {
                let key = self.cursor.key()?;
                seed.deserialize(BorrowedStrDeserializer::new(key))
                    .map(Some)
            }
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, NotPlain> {
        let value = seed.deserialize(&mut *self.cursor)?;
        self.cursor.end_of_line()?;
        Ok(value)
    }
}

/// Sub-tables under the same header. The first one's has been read.
struct SubTables<'a, 'de> {
    cursor: &'a mut Cursor<'de>,
    header: Header<'de>,
    is_first: bool,
}

impl<'de> SeqAccess<'de> for SubTables<'_, 'de> {
    type Error = NotPlain;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, NotPlain> {
        if !std::mem::take(&mut self.is_first) {
            if self.cursor.next_line()?.is_none() {
                return Ok(None);
            }
            let mut ahead = *self.cursor;
            if ahead.header()? != self.header {
                return Ok(None);
            }
            *self.cursor = ahead;
        }
        let cursor = &mut *self.cursor;
        seed.deserialize(MapAccessDeserializer::new(SubTable { cursor }))
            .map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::declare::ServiceSpec;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        service: [ServiceSpec; 1],
    }

    fn whole(text: &str) -> Option<ServiceSpec> {
        let [service] = toml::from_str::<File>(text).ok()?.service;
        Some(service)
    }

    /// Plain as it can be, but not short.
    const PLAIN: &str = r#"[[service]]
vip = "10.99.0.1" # the first
protocol="tcp"
	port	=	80
scheduler = "mh"
flags = ["mh-port" , "mh-fallback"]
persistence = { timeout = "5m", netmask = "24" }
check = {type="http",path="/a b#c",status="200-399",interval="1s"}

# A comment, and then one after a header.
[[service.real_server]] # one
address = "10.1.0.11"
[[service.real_server]]
address = "10.1.0.12"
weight = 0
upper_threshold = 4294967295

[[service.real_server]]
"#;

    #[test]
    fn what_is_plain_says_what_all_of_toml_says() {
        let text = format!("{PLAIN}address = \"10.1.0.13\"");
        let read: ServiceSpec = section("service", &text).unwrap();
        assert_eq!(Some(read), whole(&text));
        let table = text.replace("check = {type=\"http\",", "");
        let table = table.replace("path=\"/a b#c\",status=\"200-399\",interval=\"1s\"}", "");
        let table = format!("{table}\n[service.check]\ntype = \"tcp\"\nfall = 3\n");
        let read: ServiceSpec = section("service", &table).unwrap();
        assert_eq!(Some(read), whole(&table));
    }

    #[test]
    fn what_is_wrong_or_not_plain_is_left_alone() {
        let good = format!("{PLAIN}address = \"10.1.0.13\"\n");
        for (from, to) in [
            ("port\t=\t80", "port = 080"),
            ("port\t=\t80", "port = 8_0"),
            ("port\t=\t80", "port = 80.0"),
            ("port\t=\t80", "port = 70000"),
            ("port\t=\t80", "port = 80 81"),
            ("port\t=\t80", "port = 80\nport = 80"),
            ("port\t=\t80", "port = 80\rfwmark = 1"),
            ("port\t=\t80", "prot = 80"),
            ("port\t=\t80", "\"port\" = 80"),
            ("port\t=\t80", "port"),
            ("port\t=\t80", "port =\n80"),
            ("\"10.1.0.12\"", "'10.1.0.12'"),
            ("\"10.1.0.12\"", "\"10.1.0.12"),
            ("\"10.1.0.12\"", "\"10.1.0.\\u0031\""),
            ("\"mh-port\" ,", "\"mh-port\" ,,"),
            ("\"mh-fallback\"]", "\"mh-fallback\",]"),
            ("{type=", "{type.x="),
            ("interval=\"1s\"}", "interval=\"1s\""),
            ("interval=\"1s\"}", "interval=\"1s\"}}"),
            ("# the first", "# the \u{7}first"),
            ("# one", "one"),
            ("[[service]]", "[service]"),
            ("[[service]]", "[[services]]"),
            ("[[service.real_server]] # one", "[[service.real_server.x]]"),
            ("[[service.real_server]] # one", "[[real_server]]"),
            (
                "address = \"10.1.0.12\"",
                "address = \"10.1.0.12\"\n[service.tunnel]\n",
            ),
            ("weight = 0", "weight = 0\n[[vip]]\naddress = \"10.99.0.9\""),
        ] {
            let text = good.replacen(from, to, 1);
            assert_ne!(text, good, "{from:?} does not stand in the text");
            let read = section::<ServiceSpec>("service", &text);
            assert_eq!(read, Err(NotPlain), "{to:?} was taken for plain");
        }
    }

    /// Wherever a text is damaged, it is refused, or says what all of TOML makes of it.
    #[test]
    fn no_damage_makes_another_service() {
        let good = format!("{PLAIN}address = \"10.1.0.13\"\n");
        for at in 0..good.len() {
            for with in [
                "",
                "\"",
                "\n",
                " ",
                "#",
                "=",
                "[",
                "]",
                "{",
                ",",
                "0",
                "a",
                "-",
                ".",
                "\\",
                "\r",
                "é",
                "'",
                "[[service.real_server]]\n",
                "weight = 1\n",
            ] {
                for to in [at, at + 1] {
                    let text = format!("{}{with}{}", &good[..at], &good[to..]);
                    if let Ok(read) = section::<ServiceSpec>("service", &text) {
                        assert_eq!(Some(read), whole(&text), "{text}");
                    }
                }
            }
        }
    }
}
