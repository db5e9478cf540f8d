//! Request lines of the agent's admin socket.

use ubique_node::admin::Request;

/// A line that is understood means the same when it is written and read again.
pub(crate) fn admin(input: &[u8]) {
    let Ok(line) = std::str::from_utf8(input) else { return };
    let Ok(request) = serde_json::from_str::<Request>(line) else { return };
    let written = serde_json::to_string(&request).unwrap_or_else(|error| panic!("{request:?}: {error}"));
    assert!(!written.contains('\n'), "more than one line: {written:?}");
    let again: Result<Request, _> = serde_json::from_str(&written);
    assert_eq!(again.ok().as_ref(), Some(&request), "{written}");
}
