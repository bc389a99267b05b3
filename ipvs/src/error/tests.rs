use super::*;
use crate::destination::{Forwarding, Tunnel};
use crate::service::Persistence;

fn key() -> ServiceKey {
    ServiceKey::tcp(SocketAddr::from(([10, 99, 0, 1], 80)))
}

fn server() -> DestinationSpec {
    let address = SocketAddr::from(([10, 1, 0, 11], 80));
    DestinationSpec::new(address, Forwarding::Tunnel, 1)
}

fn service() -> ServiceSpec {
    ServiceSpec::new(key(), Scheduler::Mh)
}

fn refused(change: &Change, errno: Errno) -> Error {
    Error::of_change(change, Failure::Refused(errno.raw_os_error()))
}

#[test]
fn an_error_number_means_what_the_kernel_means_by_it() {
    let add = |spec: DestinationSpec| Change::AddDestination(key(), spec);
    let thresholds = DestinationSpec {
        upper_threshold: 5,
        lower_threshold: 6,
        ..server()
    };
    let heavy = DestinationSpec {
        weight: 1 << 31,
        ..server()
    };
    let six = DestinationSpec {
        address: SocketAddr::from(([0x20, 1, 0, 0, 0, 0, 0, 1], 80)),
        ..server()
    };
    let gue = DestinationSpec {
        tunnel: Tunnel {
            kind: TunnelKind::Gue,
            ..Tunnel::default()
        },
        ..server()
    };
    let prefix = ServiceSpec {
        persistence: Persistence {
            timeout: 5,
            netmask: Netmask::V6(129),
        },
        ..service()
    };
    let engine = ServiceSpec {
        persistence_engine: Some("sip".to_owned()),
        ..service()
    };
    let address = server().address;
    let cases = [
        (
            Errno::NOENT,
            Change::AddService(service()),
            "`modprobe ip_vs_mh` loads it",
        ),
        (
            Errno::NOENT,
            Change::SetService(service()),
            "`modprobe ip_vs_mh` loads it",
        ),
        (
            Errno::NOENT,
            Change::AddService(engine),
            "no persistence engine sip",
        ),
        (
            Errno::INVAL,
            Change::AddService(prefix),
            "129 is no prefix length",
        ),
        (
            Errno::EXIST,
            Change::AddService(service()),
            "it is there already",
        ),
        (
            Errno::SRCH,
            Change::SetService(service()),
            "there is no such service",
        ),
        (
            Errno::PERM,
            Change::DeleteService(key()),
            "it needs CAP_NET_ADMIN",
        ),
        (
            Errno::AFNOSUPPORT,
            Change::DeleteService(key()),
            "does not support it",
        ),
        (
            Errno::NOMEM,
            Change::AddService(service()),
            "the kernel refused",
        ),
        (
            Errno::NOENT,
            Change::DeleteDestination(key(), address),
            "no such real server",
        ),
        (
            Errno::NOENT,
            Change::SetDestination(key(), server()),
            "no such real server",
        ),
        (
            Errno::RANGE,
            add(thresholds),
            "lower threshold 6 is above the upper one 5",
        ),
        (
            Errno::RANGE,
            add(heavy),
            "the weight 2147483648 is more than",
        ),
        (Errno::INVAL, add(six), "of the other address family"),
        (Errno::INVAL, add(gue), "a GUE tunnel needs a port"),
        (
            Errno::INVAL,
            add(server()),
            "its address is not one of a host",
        ),
    ];
    for (errno, change, expected) in cases {
        let error = refused(&change, errno);
        assert_eq!(error.errno, Some(errno.raw_os_error()), "{change:?}");
        let cause = error.cause.to_string();
        assert!(cause.contains(expected), "{errno:?} of {change:?}: {cause}");
    }
    let refused = Failure::Refused(Errno::NOENT.raw_os_error());
    let error = Error::new(Operation::Connect, refused);
    assert!(
        error
            .cause
            .to_string()
            .contains("`modprobe ip_vs` loads it")
    );
}

#[test]
fn a_number_that_is_none_of_linux_is_reported_as_it_is() {
    for number in [0, 4096, i32::MAX] {
        let error = Error::new(Operation::ListServices, Failure::Refused(number));
        assert_eq!(error.errno, Some(number));
        assert!(matches!(error.cause, Cause::Kernel(_)), "{error:?}");
    }
}
