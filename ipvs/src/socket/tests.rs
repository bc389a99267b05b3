//! Against the generic netlink controller, which every kernel has, and against garbage.

use netlink_packet_generic::constants::{CTRL_ATTR_FAMILY_NAME, CTRL_CMD_GETFAMILY, GENL_ID_CTRL};
use proptest::prelude::*;

use super::*;

/// A family that no kernel has: the numbers end before it.
const NOBODY: u16 = 0xfff0;

fn push(requests: &mut Requests, family: u16, name: &str) {
    let header = GenlHeader {
        cmd: CTRL_CMD_GETFAMILY,
        version: 1,
    };
    requests.push(family, header, |writer| {
        writer.string(CTRL_ATTR_FAMILY_NAME, name);
    });
}

fn refused(result: &Result<(), Failure>) -> Option<i32> {
    match result {
        Ok(()) => None,
        Err(Failure::Refused(errno)) => Some(*errno),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn each_request_has_its_own_result() {
    let mut socket = Socket::open().unwrap();
    let nobody = Errno::NOENT.raw_os_error();
    let cases: [&[(u16, Option<i32>)]; 4] = [
        &[(GENL_ID_CTRL, None)],
        &[(NOBODY, Some(nobody))],
        &[
            (NOBODY, Some(nobody)),
            (GENL_ID_CTRL, None),
            (NOBODY, Some(nobody)),
        ],
        &[
            (GENL_ID_CTRL, None),
            (NOBODY, Some(nobody)),
            (GENL_ID_CTRL, None),
        ],
    ];
    for case in cases {
        let mut requests = Requests::default();
        for (family, _) in case {
            push(&mut requests, *family, "nlctrl");
        }
        let results = socket.tell(&mut requests);
        let found: Vec<_> = results.iter().map(refused).collect();
        let expected: Vec<_> = case.iter().map(|(_, expected)| *expected).collect();
        assert_eq!(found, expected);
    }
    assert!(socket.tell(&mut Requests::default()).is_empty());
}

#[test]
fn a_window_of_refusals_fits_the_receive_buffer() {
    let mut socket = Socket::open().unwrap();
    let mut requests = Requests::default();
    for _ in 0..WINDOW {
        // As long as the longest change, which the refusal repeats.
        push(&mut requests, NOBODY, &"n".repeat(240));
    }
    let results = socket.tell(&mut requests);
    assert_eq!(results.len(), WINDOW);
    assert!(results.iter().all(|result| refused(result).is_some()));
}

#[test]
fn a_lost_answer_is_said_to_be_lost_and_the_next_one_is_heard() {
    let mut socket = Socket::open().unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket.socket, 1).unwrap();
    let mut requests = Requests::default();
    for _ in 0..WINDOW {
        push(&mut requests, NOBODY, "nlctrl");
    }
    let results = socket.tell(&mut requests);
    let lost = |it: &Result<(), Failure>| matches!(it, Err(Failure::Lost));
    let known = results.iter().filter(|it| !lost(it)).map(refused);
    assert!(
        known.into_iter().all(|errno| errno.is_some()),
        "lost is not done"
    );
    assert!(
        results.iter().any(lost),
        "the receive buffer was large enough"
    );

    let mut requests = Requests::default();
    push(&mut requests, NOBODY, "nlctrl");
    assert!(refused(&socket.tell(&mut requests)[0]).is_some());
}

#[test]
fn an_answer_that_is_not_understood_leaves_the_socket_usable() {
    let mut socket = Socket::open().unwrap();
    let mut requests = Requests::default();
    push(&mut requests, GENL_ID_CTRL, "");
    let bad = socket.ask(&mut requests, Answer::Dump, |_| {
        Err("odd".to_owned().into())
    });
    assert!(matches!(bad, Err(Failure::Decode(_))), "{bad:?}");
    let mut families = 0;
    let good = socket.ask(&mut requests, Answer::Dump, |_| {
        families += 1;
        Ok(())
    });
    assert!(good.is_ok() && families > 0, "{families}: {good:?}");
}

proptest! {
    #[test]
    fn garbage_ends(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        // A header has 16 bytes, and what is too short for one is an error.
        prop_assert!(replies(&bytes).count() <= bytes.len() / 16 + 1);
    }
}
