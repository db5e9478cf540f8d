//! Message headers (RFC 4271 §6.1), the framer's bounds, ROUTE-REFRESH (RFC 7313 §5).

use ubique_proto::bgp::message::{Message, Notification};
use ubique_proto::bgp::wire::{
    DecodeContext, FRAMER_CAPACITY, Framer, MAX_MESSAGE, decode, encode_keepalive, encode_notification,
};

use crate::support::{EBGP, decode_all, hex, message};

fn with_length(mut message: Vec<u8>, length: u16) -> Vec<u8> {
    message[16..18].copy_from_slice(&length.to_be_bytes());
    message
}

#[test]
fn header_errors() {
    let mut marker = message(4, &[]);
    for at in 0..16 {
        marker[at] = 0xfe;
        assert_eq!(decode_all(&marker, 1, &EBGP), [Err(Notification::new(1, 1))]);
        marker[at] = 0xff;
    }
    // Type, smallest and largest length. Data is the length field.
    for (kind, shortest, longest) in [(1, 29, 4096), (2, 23, 4096), (3, 21, 4096), (4, 19, 19), (5, 23, 4096)] {
        for length in [0, 1, 18, 19, 20, 21, 22, 23, 24, 28, 29, 30, 4095, 4096, 4097, 65535_u16] {
            let stream = with_length(message(kind, &[]), length);
            let bad = Err(Notification::with_data(1, 2, length.to_be_bytes()));
            if length < shortest || length > longest {
                // Reported before the body arrives.
                assert_eq!(decode_all(&stream, 7, &EBGP), [bad], "type {kind}, length {length}");
            } else if length > 19 {
                assert_eq!(decode_all(&stream, 7, &EBGP), [], "type {kind}, length {length}");
            }
        }
    }
    for kind in [0, 6, 7, 255] {
        let bad = Err(Notification::with_data(1, 3, [kind]));
        assert_eq!(decode_all(&message(kind, b"body"), 1, &EBGP), std::slice::from_ref(&bad));
        assert_eq!(decode(&message(kind, b"body"), &EBGP), bad);
    }
    // Marker before length before type.
    let mut all = with_length(message(9, &[]), 4);
    assert_eq!(decode(&all, &EBGP), Err(Notification::with_data(1, 2, [0, 4])));
    all[0] = 0;
    assert_eq!(decode(&all, &EBGP), Err(Notification::new(1, 1)));
    // A smaller limit of ours.
    let short = DecodeContext { max_message: 100, ..EBGP };
    assert_eq!(decode(&message(3, &[0; 82]), &short), Err(Notification::with_data(1, 2, [0, 101])));
    assert!(decode(&message(3, &[0; 81]), &short).is_ok());
}

#[test]
fn a_whole_message_only() {
    let sound = message(3, &[6, 2]);
    for end in 0..sound.len() {
        let error = decode(&sound[..end], &EBGP).unwrap_err();
        assert_eq!((error.code, error.subcode), (1, 2));
    }
    let longer = [sound, vec![0]].concat();
    assert_eq!(decode(&longer, &EBGP), Err(Notification::with_data(1, 2, [0, 21])));
}

#[test]
fn framer_is_bounded_and_final() {
    let mut keepalives = Vec::new();
    while keepalives.len() < 3 * FRAMER_CAPACITY {
        encode_keepalive(&mut keepalives);
    }
    let mut framer = Framer::new();
    let taken = framer.push(&keepalives);
    assert_eq!(taken, FRAMER_CAPACITY);
    assert_eq!(framer.push(&keepalives[taken..]), 0);
    let mut count = 0;
    let mut rest = &keepalives[taken..];
    loop {
        while let Some(result) = framer.next(&EBGP) {
            assert_eq!(result, Ok(Message::Keepalive));
            count += 1;
        }
        if rest.is_empty() {
            break;
        }
        rest = &rest[framer.push(rest)..];
    }
    assert_eq!(count, keepalives.len() / 19);
    // After an error nothing is read any more, and nothing is kept.
    let bad = message(77, &[]);
    assert_eq!(framer.push(&bad), bad.len());
    assert_eq!(framer.next(&EBGP), Some(Err(Notification::with_data(1, 3, [77]))));
    assert_eq!(framer.push(&keepalives), keepalives.len());
    assert_eq!(framer.next(&EBGP), None);
}

#[test]
fn an_error_in_a_body_ends_the_stream_too() {
    let stream = [message(4, &[]), message(2, &hex("FFFF0000")), message(4, &[])].concat();
    for step in 1..stream.len() {
        assert_eq!(decode_all(&stream, step, &EBGP), [Ok(Message::Keepalive), Err(Notification::new(3, 1))]);
    }
}

#[test]
fn route_refresh() {
    assert_eq!(decode(&message(5, &hex("00020001")), &EBGP), Ok(Message::RouteRefresh { afi: 2, subtype: 0, safi: 1 }));
    assert_eq!(
        decode(&message(5, &hex("40040147")), &EBGP),
        Ok(Message::RouteRefresh { afi: 0x4004, subtype: 1, safi: 0x47 })
    );
    // RFC 7313 §5 for its own subtypes; otherwise a bad length.
    for subtype in [1, 2] {
        let long = message(5, &[0, 1, subtype, 1, 0]);
        assert_eq!(decode(&long, &EBGP), Err(Notification::with_data(7, 1, long.clone())));
    }
    assert_eq!(decode(&message(5, &hex("0001000100")), &EBGP), Err(Notification::with_data(1, 2, [0, 24])));
}

#[test]
fn notification_data_is_cut_to_the_message() {
    let mut out = Vec::new();
    encode_notification(&Notification::with_data(7, 1, vec![7; 9000]), &mut out);
    assert_eq!(out.len(), MAX_MESSAGE);
    let Ok(Message::Notification(back)) = decode(&out, &EBGP) else { panic!() };
    assert_eq!((back.code, back.subcode, back.data.len()), (7, 1, 4075));
}
