//! Which services of a file have changed since it was last read.
//!
//! A file of a thousand services takes most of a second to parse on a slow machine, and usually
//! one of them was edited. The text is cut at its `[[service]]` headers; a section whose text is
//! the same is the same service, and only the others are parsed. Whatever is out of the ordinary
//! is left to the parser of the whole file, which also says what is wrong with it, and where.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use memchr::memmem;
use serde::Deserialize;

use crate::config::DirectorFile;
use crate::declare::{ServiceSpec, validate_services};
use crate::plain::{self, NotPlain};

/// The header of a service's section, and what is in it.
const HEADER: &str = "[[service]]";
const NAME: &str = "service";

/// Files with fewer services than this are parsed whole: there is nothing to gain.
const MANY: usize = 32;

/// More changed services than this are not worth it.
const MOST_CHANGED: usize = 16;

/// The text before the first service, and then that of each service, as hashes: two texts are
/// taken for different by mistake never, and for the same once in 2^64 edits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sections(Vec<u64>);

/// A service and its place in the file.
pub type Placed = (usize, Arc<ServiceSpec>);

/// A section's text by itself. Nothing but the service may stand in it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    service: Vec<ServiceSpec>,
}

impl Sections {
    /// The sections of the text that `file` was read from; nothing where it cannot be cut.
    pub fn of(text: &str, file: &DirectorFile) -> Option<Self> {
        let sections = cut(text)?;
        let services = sections.len().checked_sub(1)?;
        (services == file.service.len()).then(|| Self(sections.into_iter().map(hash).collect()))
    }

    /// The services of `text` that differ from those of `file`, by their place in it, and the
    /// text's sections. Nothing where more has changed than what few services say of themselves:
    /// their number, which packets they are for, or anything before them.
    pub fn changed(&self, text: &str, file: &DirectorFile) -> Option<(Self, Vec<Placed>)> {
        let sections = cut(text)?;
        let hashes: Vec<u64> = sections.iter().copied().map(hash).collect();
        if hashes.len() != self.0.len() || hashes.first() != self.0.first() {
            return None;
        }
        let differs = |index: &usize| hashes[*index] != self.0[*index];
        let differing: Vec<usize> = (0..hashes.len()).filter(differs).collect();
        if differing.len() > MOST_CHANGED {
            return None;
        }
        let mut changed = Vec::new();
        for index in differing {
            let place = index.checked_sub(1)?;
            let service = only_service(sections[index])?;
            if service.id() != file.service.get(place)?.id() {
                return None;
            }
            if !validate_services(&file.vip, std::slice::from_ref(&service)).is_empty() {
                return None;
            }
            changed.push((place, Arc::new(service)));
        }
        Some((Self(hashes), changed))
    }
}

/// A file of many services, parsed one after the other: as a whole its tree takes ten times the
/// memory of what comes out of it, which a process seldom gives back. Nothing where it is smaller,
/// or anything in it is out of the ordinary. It is not validated.
pub(crate) fn parse(text: &str) -> Option<DirectorFile> {
    let sections = cut(text)?;
    let (head, services) = sections.split_first()?;
    if services.len() < MANY {
        return None;
    }
    let mut file: DirectorFile = toml::from_str(head).ok()?;
    if !file.service.is_empty() {
        return None;
    }
    file.service.reserve_exact(services.len());
    for section in services {
        file.service.push(Arc::new(only_service(section)?));
    }
    Some(file)
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// Cuts a text at its services. In a text that is well-formed, a line that begins with the header
/// is one, unless it stands within a string of several lines: a text with any of these is not cut.
fn cut(text: &str) -> Option<Vec<&str>> {
    let contains = |what: &str| memmem::find(text.as_bytes(), what.as_bytes()).is_some();
    if contains("\"\"\"") || contains("'''") {
        return None;
    }
    let mut sections = Vec::new();
    let mut begin = 0;
    for found in memmem::find_iter(text.as_bytes(), HEADER) {
        let is_line = found == 0 || text.as_bytes()[found - 1] == b'\n';
        // An indented one, or one in a comment or a string, belongs to what is around it; where
        // that makes a section of two services, it is not taken.
        if is_line {
            sections.push(&text[begin..found]);
            begin = found;
        }
    }
    sections.push(&text[begin..]);
    Some(sections)
}

fn only_service(section: &str) -> Option<ServiceSpec> {
    let mut service = match plain::section(NAME, section) {
        Ok(service) => service,
        Err(NotPlain) => {
            let mut section: Section = toml::from_str(section).ok()?;
            let service = section.service.pop()?;
            section.service.is_empty().then_some(service)?
        }
    };
    // There are many, and they stay.
    service.real_server.shrink_to_fit();
    Some(service)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "[director]\nname = \"d1\"\nrouter_id = \"10.0.1.2\"\n\
        [ospf]\n[[ospf.interface]]\nname = \"eth1\"\n[[vip]]\naddress = \"10.99.0.1/32\"\n";

    fn text(weights: &[u32]) -> String {
        let mut text = HEAD.to_owned();
        for (port, weight) in (80..).zip(weights) {
            text.push_str(&format!(
                "[[service]]\nvip = \"10.99.0.1\"\nprotocol = \"tcp\"\nport = {port}\n\
                 check = {{ type = \"none\" }}\n[[service.real_server]]\n\
                 address = \"10.1.0.11\"\nweight = {weight}\n"
            ));
        }
        text
    }

    fn read(text: &str) -> (DirectorFile, Option<Sections>) {
        let file = DirectorFile::parse("d1.toml", text).unwrap();
        let sections = Sections::of(text, &file);
        (file, sections)
    }

    #[test]
    fn what_changed_is_what_the_whole_file_says() {
        let (mut file, sections) = read(&text(&[1, 1, 1, 1]));
        let edited = text(&[1, 5, 1, 7]);
        let (sections, changed) = sections.unwrap().changed(&edited, &file).unwrap();
        let places: Vec<usize> = changed.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, [1, 3]);
        for (place, service) in changed {
            file.service[place] = service;
        }
        let (whole, of_whole) = read(&edited);
        assert_eq!(file, whole);
        assert_eq!(Some(&sections), of_whole.as_ref());
        let (_, nothing) = sections.changed(&edited, &file).unwrap();
        assert!(nothing.is_empty(), "{nothing:?}");
    }

    #[test]
    fn what_is_more_than_a_changed_service_is_left_to_the_whole_file() {
        let (file, sections) = read(&text(&[1, 1]));
        let sections = sections.unwrap();
        let good = text(&[1, 2]);
        for (why, edited) in [
            ("a service more", text(&[1, 1, 1])),
            ("a service less", text(&[1])),
            ("another VIP", good.replace("10.99.0.1/32", "10.99.0.2/32")),
            ("another port", good.replace("port = 81", "port = 82")),
            (
                "a VIP at the end",
                format!("{good}[[vip]]\naddress = \"10.99.0.9/32\"\n"),
            ),
            ("an unknown key", good.replace("weight = 2", "wight = 2")),
            (
                "a fault",
                good.replace(
                    "weight = 2",
                    "weight = 2\nupper_threshold = 1\nlower_threshold = 5",
                ),
            ),
            ("no TOML", good.replace("weight = 2", "weight = ")),
            ("a string of several lines", format!("{good}# \"\"\"\n")),
            ("an indented service", format!("{good}  [[service]]\n")),
        ] {
            assert!(
                sections.changed(&edited, &file).is_none(),
                "{why} was taken"
            );
        }
    }

    #[test]
    fn one_after_the_other_says_the_same_as_the_whole() {
        let many = text(&[7; MANY]);
        let whole: DirectorFile = toml::from_str(&many).unwrap();
        assert_eq!(parse(&many), Some(whole));
        assert_eq!(parse(&text(&[7; MANY - 1])), None);
        let later = format!("{many}[[vip]]\naddress = \"10.99.0.2/32\"\n");
        assert_eq!(parse(&later), None);
        let faulty = many.replacen("weight = 7", "weight = 70000", 2);
        let faults = DirectorFile::parse("d1.toml", &faulty)
            .unwrap_err()
            .to_string();
        let line = 1 + faulty
            .lines()
            .position(|it| it == "weight = 70000")
            .unwrap();
        assert!(faults.starts_with(&format!("d1.toml:{line}:")), "{faults}");
    }

    #[test]
    fn a_header_that_is_not_at_the_start_of_a_line_is_none() {
        let commented = text(&[1, 1]).replace("weight = 1\n", "weight = 1 # [[service]]\n");
        let (file, sections) = read(&commented);
        let sections = sections.expect("comments count as headers");
        let edited = commented.replacen("weight = 1", "weight = 3", 1);
        let (_, changed) = sections.changed(&edited, &file).unwrap();
        assert_eq!(changed.len(), 1);
        let indented = text(&[1, 1]).replace("[[service]]", "  [[service]]");
        assert_eq!(read(&indented).1, None);
    }
}
