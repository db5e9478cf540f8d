//! Sessions while routes flip and a site is drained: with the data plane none is lost, without it those that were moved are.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::run::{Lab, root, work_directory};

const KINDS: [&str; 6] = ["tcp-short", "tcp", "upload", "download", "tls", "quic"];

fn example(file: &str) -> String {
    let path = root().join("examples/sessions").join(file);
    fs::canonicalize(path).expect("the example").display().to_string()
}

/// Why no site here has a data plane, where that is so.
fn without_data_plane(report: &Value) -> Option<String> {
    let sites = report["sessions"]["data_plane"].as_array().expect("sites");
    assert_eq!(sites.len(), 3);
    sites.iter().find(|site| site["state"] == "off").map(|site| site["troubles"].to_string())
}

fn rows<'a>(of: &'a Value, kind: &str) -> Vec<&'a Value> {
    let rows = of["rows"].as_array().expect("rows");
    rows.iter().filter(|row| row["kind"] == kind).collect()
}

#[test]
fn no_session_is_lost_by_flips_and_drains_and_without_the_data_plane_they_are() {
    let Some(lab) = Lab::new() else { return };
    let arguments = ["rehearse", &example("service.toml"), "--scenario", &example("scenario.toml")];
    let report = match lab.attempt(&arguments, |report| without_data_plane(report).is_none()) {
        Ok(report) => report,
        Err(report) => match without_data_plane(&report) {
            Some(why) => return eprintln!("skipped: no data plane here: {why}"),
            None => panic!("{:#}\n{:#}", report["verdict"], report["events"]),
        },
    };
    let (sessions, control) = (&report["sessions"], &report["control"]);
    assert_eq!(sessions["total"]["lost"], 0, "{sessions:#}");
    assert!(sessions["total"]["content_bytes"].as_u64() > Some(10_000_000), "{sessions:#}");
    for kind in KINDS {
        let (rows, without) = (rows(sessions, kind), rows(control, kind));
        assert_eq!((rows.len(), without.len()), (3, 3), "one for each vantage point");
        for row in rows {
            assert!(row["sessions"].as_u64() >= Some(2), "{row:#}");
        }
        for row in without {
            let lost = row["lost"].as_u64();
            match row["vantage"].as_str() {
                Some("Boston") => assert_eq!(lost, Some(0), "its routes do not move: {row:#}"),
                // A short session may be between two packets just then; those of QUIC wait for what comes back in time.
                Some("Dublin") if kind == "quic" => {}
                _ if kind == "tcp-short" => {}
                _ => assert!(lost >= Some(2), "{row:#}"),
            }
        }
    }
    let ways = control["total"]["how"].as_object().expect("ways");
    assert!(ways.contains_key("reset") && ways.contains_key("timeout"), "{ways:?}");
    let drained = sessions["steps"].as_array().expect("steps").iter().find(|step| step["label"] == "drain");
    let sites = drained.expect("the drain")["sites"].as_object().expect("sites");
    assert!(sites.contains_key("nyc"), "new ones begin elsewhere: {sites:?}");
}

/// BPF is root's; and an expectation of sessions can fail.
#[test]
fn an_ordinary_user_is_told_that_there_is_no_data_plane() {
    let Some(lab) = Lab::ordinary_user() else { return };
    let directory = work_directory("sessions");
    for file in ["service.toml", "internet.toml"] {
        fs::copy(example(file), directory.join(file)).expect("a copy");
        fs::set_permissions(directory.join(file), fs::Permissions::from_mode(0o644)).expect("it may be read");
    }
    let scenario = directory.join("scenario.toml");
    let step = |keys: &str| format!("[[step]]\naction = \"divert\"\nnetwork = 64701\n{keys}\n");
    let text = format!(
        "name = \"sessions\"\ninternet = \"internet.toml\"\nquery-every = \"20ms\"\n\n\
         [[session]]\nkind = \"tcp\"\nvantages = [\"Dublin\"]\n\n[[step]]\naction = \"converge\"\n\n{}",
        step("to = 64603\nfor = \"1s\"\nexpect = { sessions-lost = 0 }"),
    );
    fs::write(&scenario, text).expect("a scenario file");
    let file = |name: &str| directory.join(name).display().to_string();
    let report = lab.report(&["rehearse", &file("service.toml"), "--scenario", &file("scenario.toml")]);
    assert!(without_data_plane(&report).is_some_and(|why| why.contains("CAP_BPF") || why.contains("unavailable")));
    let events = report["events"].as_array().expect("events").iter();
    let told = events.filter_map(|event| event["text"].as_str()).any(|text| text.contains("is not available here"));
    assert!(told, "{:#}", report["events"]);
    let step = &report["sessions"]["steps"][0];
    assert_eq!((&step["label"], &step["how"]), (&"divert".into(), &serde_json::json!({ "reset": 2 })), "{step:#}");
    let failed = &report["expectations"][0];
    assert_eq!(
        (&failed["what"], &failed["actual"], &failed["ok"]),
        (&"sessions-lost".into(), &"2 (2 reset)".into(), &false.into())
    );
    assert_eq!(report["control"], Value::Null);
}

#[test]
fn a_diversion_that_would_lose_everything_is_refused() {
    let Some(lab) = Lab::new() else { return };
    let scenario = work_directory("scenarios").join("nowhere.toml");
    let text = format!(
        "name = \"nowhere\"\ninternet = \"{}\"\n\n[[step]]\naction = \"converge\"\n\n\
         [[step]]\naction = \"divert\"\nnetwork = 64703\nto = 64602\n",
        example("internet.toml")
    );
    fs::write(&scenario, text).expect("a scenario file");
    let output = lab.output(&["rehearse", &example("service.toml"), "--scenario", &scenario.display().to_string()]);
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(words.contains("AS64602 has told AS64703 no route to 198.51.100.0/24"), "{words}");
}
