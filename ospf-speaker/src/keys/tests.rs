use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use isopath_api::config::DirectorFile;

use super::*;

/// A directory of its own, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let name = format!("isopath-speaker-keys-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, contents: &[u8], mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

fn parse(auth: &str) -> Result<Keys, String> {
    let text = format!(
        "[director]\nname = \"d1\"\nrouter_id = \"10.0.1.2\"\n[ospf]\n[[ospf.interface]]\n\
         name = \"eth1\"\nauth = {auth}\n"
    );
    let mut keys = Keys::default();
    let parsed = DirectorFile::parse_with("d1.toml", &text, |file| {
        match Keys::load(&file.ospf.interface) {
            Ok(loaded) => {
                keys = loaded;
                Vec::new()
            }
            Err(faults) => faults,
        }
    });
    parsed.map_err(|faults| faults.to_string())?;
    Ok(keys)
}

fn md5(key_file: &Path) -> String {
    format!(
        "{{ algorithm = \"md5\", key_id = 1, key_file = \"{}\" }}",
        key_file.display()
    )
}

/// 2027-01-01T00:00:00Z.
fn clocks() -> Clocks {
    Clocks {
        now: Instant::now() + Duration::from_secs(7200),
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_798_761_600),
    }
}

#[test]
fn the_end_of_the_line_is_no_part_of_the_key() {
    let directory = Directory::new("line");
    for (contents, secret) in [
        (&b"secret"[..], &b"secret"[..]),
        (b"secret\n", b"secret"),
        (b"secret\r\n", b"secret"),
        (b" se cret \n", b" se cret "),
        (b"sixteen bytes ok\r\n", b"sixteen bytes ok"),
    ] {
        let path = directory.write("key", contents, 0o600);
        let expected = Authentication::Cryptographic(vec![Key {
            id: 1,
            algorithm: isopath_ospf::Algorithm::Md5,
            secret: Secret::new(secret),
            send: Lifetime::ALWAYS,
            accept: Lifetime::ALWAYS,
        }]);
        let keys = parse(&md5(&path)).unwrap();
        assert_eq!(keys.authentication(0, clocks()), expected, "{contents:?}");
    }
}

#[test]
fn a_key_file_of_no_use_is_a_fault_in_the_line_that_names_it() {
    let directory = Directory::new("faults");
    let cases: [(&str, &[u8], u32, &str); 8] = [
        ("empty", b"", 0o600, "nothing in it"),
        ("blank", b"\n", 0o600, "nothing in it"),
        ("long", b"seventeen bytes !\n", 0o600, "1 to 16 bytes"),
        ("longer", &[b'x'; 4000], 0o600, "1 to 16 bytes"),
        ("lines", b"one\ntwo\n", 0o600, "several lines"),
        ("nul", b"a\0b", 0o600, "several lines, or a NUL"),
        ("open", b"secret\n", 0o644, "found "),
        ("writable", b"secret\n", 0o620, "mode 0620"),
    ];
    for (name, contents, mode, words) in cases {
        let path = directory.write(name, contents, mode);
        let faults = parse(&md5(&path)).expect_err(name);
        assert!(faults.starts_with("d1.toml:7:"), "{name}: {faults}");
        assert!(faults.contains(words), "{name}: {faults}");
        assert!(!faults.contains("secret"), "{name}: {faults}");
    }
    let missing = parse(&md5(&directory.0.join("missing"))).unwrap_err();
    assert!(missing.contains("No such file"), "{missing}");
    let folder = parse(&md5(&directory.0)).unwrap_err();
    assert!(folder.contains("something else than a file"), "{folder}");
}

#[test]
fn a_password_has_at_most_eight_bytes() {
    let directory = Directory::new("simple");
    let auth = |contents: &[u8]| {
        let path = directory.write("key", contents, 0o640);
        let path = path.display();
        parse(&format!(
            "{{ algorithm = \"simple\", key_file = \"{path}\" }}"
        ))
    };
    let keys = auth(b"12345678\n").unwrap();
    let expected = Authentication::Simple(Secret::new(*b"12345678"));
    assert_eq!(keys.authentication(0, clocks()), expected);
    assert!(auth(b"123456789").unwrap_err().contains("1 to 8 bytes"));
}

#[test]
fn nothing_prints_a_secret() {
    let directory = Directory::new("print");
    let path = directory.write("key", b"hush-hush", 0o600);
    let keys = parse(&md5(&path)).unwrap();
    let printed = format!("{keys:?} {:?}", keys.authentication(0, clocks()));
    assert!(!printed.contains("hush"), "{printed}");
    // A list of bytes would give it away, too.
    assert!(!printed.contains("104, 117"), "{printed}");
}

#[test]
fn lifetimes_follow_the_wall_clock_wherever_it_is_set() {
    let directory = Directory::new("lifetimes");
    let path = directory.write("key", b"secret", 0o600);
    let keys = parse(&format!(
        "{{ keys = [{{ algorithm = \"hmac-sha-1\", key_id = 3, key_file = \"{}\", \
         send_from = \"2026-12-31T23:59:00Z\", accept_until = \"2027-01-01T00:10:00Z\" }}] }}",
        path.display()
    ))
    .unwrap();
    let clocks = clocks();
    for ahead in [0, 100, 3600] {
        let ahead = Duration::from_secs(ahead);
        let set = Clocks {
            wall: clocks.wall + ahead,
            ..clocks
        };
        let Authentication::Cryptographic(keys) = keys.authentication(0, set) else {
            panic!("no keys");
        };
        let at = |seconds: i64, ahead: Duration| {
            let moved = clocks.now - ahead;
            if seconds < 0 {
                moved - Duration::from_secs(seconds.unsigned_abs())
            } else {
                moved + Duration::from_secs(seconds.unsigned_abs())
            }
        };
        assert_eq!(keys[0].send.from, Some(at(-60, ahead)));
        assert_eq!(keys[0].send.until, None);
        assert_eq!(keys[0].accept.until, Some(at(600, ahead)));
    }
    // A machine without a clock of its own starts in 1970.
    let early = Clocks {
        wall: SystemTime::UNIX_EPOCH,
        ..clocks
    };
    let Authentication::Cryptographic(keys) = keys.authentication(0, early) else {
        panic!("no keys");
    };
    assert!(keys[0].send.from > Some(clocks.now));
}
