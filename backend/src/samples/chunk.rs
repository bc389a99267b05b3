//! What was measured of a cluster in one window of time, and its packed form.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use isopath_api::ids::{DirectorName, ParseIdError, RealServerId, ServiceId, Vip};

/// Something that is measured.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Object {
    /// A director: all of its services together.
    Director(DirectorName),
    /// A VIP: all directors together.
    Vip(Vip),
    /// A service: all directors together.
    Service(ServiceId),
    /// A real server of a service: all directors together.
    RealServer(ServiceId, RealServerId),
}

/// The kinds of objects, as the first part of an object's name.
pub const KINDS: [&str; 4] = ["director", "vip", "service", "real-server"];

impl Object {
    /// Its kind, one of [`KINDS`].
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Director(_) => "director",
            Self::Vip(_) => "vip",
            Self::Service(_) => "service",
            Self::RealServer(..) => "real-server",
        }
    }

    /// What is measured of it.
    pub fn series(&self) -> &'static [&'static str] {
        match self {
            Self::Director(_) => &["packets_per_second", "connections_per_second", "active"],
            Self::Vip(_) => &["width", "packets_per_second"],
            Self::Service(_) | Self::RealServer(..) => &["connections_per_second", "active"],
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Self::Director(name) => write!(f, "{kind}/{name}"),
            Self::Vip(vip) => write!(f, "{kind}/{vip}"),
            Self::Service(service) => write!(f, "{kind}/{service}"),
            Self::RealServer(service, server) => write!(f, "{kind}/{service}/{server}"),
        }
    }
}

impl FromStr for Object {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, name) = text.split_once('/').unwrap_or((text, ""));
        match kind {
            "director" => name.parse().map(Self::Director),
            "vip" => name.parse().map(Self::Vip),
            "service" => name.parse().map(Self::Service),
            "real-server" => {
                let (service, server) = name.split_once('/').unwrap_or((name, ""));
                Ok(Self::RealServer(service.parse()?, server.parse()?))
            }
            _ => Err(ParseIdError {
                expected: "an object such as director/d1, vip/10.99.0.1, \
                           service/tcp:10.99.0.1:80 or \
                           real-server/tcp:10.99.0.1:80/10.1.0.11:80",
                found: text.to_owned(),
            }),
        }
    }
}

/// What an object measured at one moment, in the order of [`Object::series`]; nothing for what
/// nobody knew.
pub(super) type Reading = Vec<Option<u32>>;

/// A window of points. All series are equally long.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chunk {
    points: usize,
    /// The points of each series of each object.
    objects: BTreeMap<Object, Vec<Vec<Option<u32>>>>,
}

impl Chunk {
    /// How many points it has.
    pub fn points(&self) -> usize {
        self.points
    }

    /// The points of each series of each object, in the order of [`Object::series`].
    pub fn objects(&self) -> impl Iterator<Item = (&Object, &[Vec<Option<u32>>])> {
        let objects = self.objects.iter();
        objects.map(|(object, series)| (object, series.as_slice()))
    }

    /// Appends the point number `place`; those left out before it, and objects without a
    /// reading, were not known. What is not later than the last point is dropped.
    pub fn push(&mut self, place: usize, readings: BTreeMap<Object, Reading>) {
        if place < self.points {
            return;
        }
        for (object, reading) in readings {
            let series = self
                .objects
                .entry(object)
                .or_insert_with_key(|object| vec![Vec::new(); object.series().len()]);
            for (series, value) in series.iter_mut().zip(reading) {
                series.resize(place, None);
                series.push(value);
            }
        }
        self.points = place + 1;
        for series in self.objects.values_mut().flatten() {
            series.resize(self.points, None);
        }
    }

    /// The mean of each series, of what is known.
    pub fn mean(&self) -> BTreeMap<Object, Reading> {
        let mean = |points: &Vec<Option<u32>>| {
            let known = || points.iter().flatten().map(|value| u64::from(*value));
            let count = known().count() as u64;
            let sum: u64 = known().sum();
            // Rounded, it is never more than the largest of them.
            (count > 0).then(|| u32::try_from((sum + count / 2) / count).unwrap_or(u32::MAX))
        };
        let objects = self.objects.iter();
        objects
            .map(|(object, series)| (object.clone(), series.iter().map(mean).collect()))
            .collect()
    }

    /// The chunk as it is stored.
    ///
    /// Neighbouring points differ little and are often the same, so each is the difference to the
    /// one before as a variable number of bytes, and a run of equal ones its length. The names of
    /// objects stand once a chunk.
    pub fn pack(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put(&mut out, self.points as u64);
        put(&mut out, self.objects.len() as u64);
        for (object, series) in &self.objects {
            let name = object.to_string();
            put(&mut out, name.len() as u64);
            out.extend_from_slice(name.as_bytes());
            put(&mut out, series.len() as u64);
            for points in series {
                pack_series(&mut out, points);
            }
        }
        out
    }

    /// Reads what [`Chunk::pack`] made; nothing when it is something else. Objects that this
    /// release does not know are left out.
    pub fn unpack(bytes: &[u8]) -> Option<Self> {
        let (version, mut rest) = bytes.split_first()?;
        if *version != VERSION {
            return None;
        }
        let points = usize::try_from(take(&mut rest)?).ok()?;
        if points > MOST_POINTS {
            return None;
        }
        let count = take(&mut rest)?;
        let mut objects = BTreeMap::new();
        for _ in 0..count {
            let length = usize::try_from(take(&mut rest)?).ok()?;
            let (name, after) = rest.split_at_checked(length)?;
            rest = after;
            let name = std::str::from_utf8(name).ok()?;
            let series = take(&mut rest)?;
            let mut read = Vec::new();
            for _ in 0..series {
                read.push(unpack_series(&mut rest, points)?);
            }
            if let Ok(object) = name.parse::<Object>() {
                read.resize(object.series().len(), vec![None; points]);
                objects.insert(object, read);
            }
        }
        rest.is_empty().then_some(Self { points, objects })
    }
}

/// The packed form's own version.
const VERSION: u8 = 1;

/// More points than any window has: what claims more was not written by us.
const MOST_POINTS: usize = 10_000;

fn pack_series(out: &mut Vec<u8>, points: &[Option<u32>]) {
    let mut before = 0;
    let mut run = 0_u64;
    for point in points {
        // Nothing is 0, and every number one more than it is.
        let value = point.map_or(0, |value| i64::from(value) + 1);
        let difference = value - before;
        before = value;
        if difference == 0 {
            run += 1;
            continue;
        }
        end_run(out, &mut run);
        put(out, zigzag(difference));
    }
    end_run(out, &mut run);
}

fn end_run(out: &mut Vec<u8>, run: &mut u64) {
    if *run > 0 {
        put(out, 0);
        put(out, *run);
        *run = 0;
    }
}

fn unpack_series(rest: &mut &[u8], points: usize) -> Option<Vec<Option<u32>>> {
    let mut series = Vec::with_capacity(points);
    let mut value = 0_i64;
    while series.len() < points {
        let times = match take(rest)? {
            0 => usize::try_from(take(rest)?).ok()?,
            difference => {
                value = value.checked_add(unzigzag(difference))?;
                1
            }
        };
        if times == 0 || times > points - series.len() {
            return None;
        }
        let point = match value {
            0 => None,
            value => Some(u32::try_from(value - 1).ok()?),
        };
        series.extend(std::iter::repeat_n(point, times));
    }
    Some(series)
}

/// Small numbers for small differences, whatever their sign.
fn zigzag(difference: i64) -> u64 {
    ((difference << 1) ^ (difference >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// Seven bits a byte, the lowest first; the eighth says that more come.
fn put(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Object {
        text.parse().unwrap()
    }

    fn readings(all: &[(&str, &[Option<u32>])]) -> BTreeMap<Object, Reading> {
        let all = all.iter();
        all.map(|(name, reading)| (object(name), reading.to_vec()))
            .collect()
    }

    #[test]
    fn objects_have_names_that_are_read_back() {
        for name in [
            "director/d1",
            "vip/10.99.0.1",
            "service/tcp:10.99.0.1:80",
            "service/fwmark:10.99.0.1:7",
            "real-server/tcp:10.99.0.1:80/10.1.0.11:80",
        ] {
            let object = object(name);
            assert_eq!(object.to_string(), name);
            assert_eq!(name.split('/').next(), Some(object.kind()));
        }
        for name in ["", "director", "director/", "x/y", "vip/10.99.0.0/24"] {
            assert!(name.parse::<Object>().is_err(), "{name}");
        }
    }

    #[test]
    fn what_was_not_known_stays_so() {
        let mut chunk = Chunk::default();
        chunk.push(1, readings(&[("vip/10.99.0.1", &[Some(2), None])]));
        chunk.push(3, readings(&[("director/d1", &[Some(7), Some(0), None])]));
        chunk.push(3, readings(&[("director/d1", &[Some(9), Some(9), None])]));
        let found: Vec<_> = chunk.objects().collect();
        let d1 = [
            vec![None, None, None, Some(7)],
            vec![None, None, None, Some(0)],
            vec![None; 4],
        ];
        let vip = [vec![None, Some(2), None, None], vec![None; 4]];
        assert_eq!(chunk.points(), 4);
        assert_eq!(
            found,
            [
                (&object("director/d1"), &d1[..]),
                (&object("vip/10.99.0.1"), &vip[..]),
            ]
        );
    }

    #[test]
    fn a_packed_chunk_is_read_back() {
        let mut chunk = Chunk::default();
        for place in 0..200_usize {
            let value = match place % 7 {
                0 => None,
                1 => Some(u32::MAX),
                2 => Some(0),
                n => Some(u32::try_from(place / 20 * n).unwrap()),
            };
            chunk.push(
                place,
                readings(&[
                    ("director/d1", &[value, Some(5), None]),
                    ("service/tcp:10.99.0.1:80", &[Some(0), value]),
                ]),
            );
        }
        assert_eq!(Chunk::unpack(&chunk.pack()), Some(chunk));
        let empty = Chunk::default();
        assert_eq!(Chunk::unpack(&empty.pack()), Some(empty));
    }

    #[test]
    fn no_bytes_do_harm() {
        let mut chunk = Chunk::default();
        chunk.push(2, readings(&[("director/d1", &[Some(700), Some(5), None])]));
        let packed = chunk.pack();
        for length in 0..packed.len() {
            assert_eq!(Chunk::unpack(&packed[..length]), None, "{length}");
        }
        for place in 0..packed.len() {
            for bit in 0..8 {
                let mut damaged = packed.clone();
                damaged[place] ^= 1 << bit;
                drop(Chunk::unpack(&damaged));
            }
        }
        let endless = [VERSION, 0xff, 0xff, 0xff, 0xff, 0x0f, 1];
        assert_eq!(Chunk::unpack(&endless), None);
    }

    #[test]
    fn a_mean_counts_what_was_known() {
        let mut chunk = Chunk::default();
        let values = [Some(1), None, Some(4), Some(u32::MAX)];
        for (place, value) in values.into_iter().enumerate() {
            chunk.push(place, readings(&[("vip/10.99.0.1", &[value, None])]));
        }
        let sum = u64::from(u32::MAX) + 5;
        let mean = u32::try_from(sum.div_ceil(3)).unwrap();
        assert_eq!(chunk.mean()[&object("vip/10.99.0.1")], [Some(mean), None]);
        assert_eq!(Chunk::default().mean(), BTreeMap::new());
    }
}
