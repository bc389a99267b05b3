//! Packets in words, for traces.

use isopath_ospf::packet::{Body, LsaHeader};

pub(crate) fn body(body: &Body) -> String {
    match body {
        Body::Hello(hello) => {
            let heard: Vec<String> = hello.neighbors.iter().map(ToString::to_string).collect();
            format!("Hello dr {} bdr {} hears {heard:?}", hello.dr, hello.bdr)
        }
        Body::DbDesc(dbdesc) => {
            let bit = |set: bool, name: &'static str| if set { name } else { "" };
            format!(
                "DD {:#x} {}{}{} {:?}",
                dbdesc.sequence,
                bit(dbdesc.flags.init, "I"),
                bit(dbdesc.flags.more, "M"),
                bit(dbdesc.flags.master, "MS"),
                headers(&dbdesc.headers)
            )
        }
        Body::Request(keys) => format!("Request {} LSAs", keys.len()),
        Body::Update(lsas) => {
            let all: Vec<LsaHeader> = lsas.iter().map(|lsa| *lsa.header()).collect();
            format!("Update {:?}", headers(&all))
        }
        Body::Ack(all) => format!("Ack {:?}", headers(all)),
    }
}

fn headers(headers: &[LsaHeader]) -> Vec<String> {
    headers.iter().map(header).collect()
}

pub(crate) fn header(header: &LsaHeader) -> String {
    format!(
        "{:?} {} of {} seq {:#x} age {}",
        header.key.ls_type,
        header.key.link_state_id,
        header.key.advertising_router,
        header.sequence,
        header.age
    )
}
