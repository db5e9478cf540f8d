use super::*;

#[test]
fn exchange_points_imply_links_between_unlinked_members() {
    let text = include_bytes!("../../tests/files/internet.toml");
    let internet = Internet::parse("i.toml", text).value.unwrap();
    let links: Vec<(u32, u32, Relation, Option<&str>)> =
        internet.links.iter().map(|l| (l.a.0, l.b.0, l.relation, l.ixp.as_deref())).collect();
    let ix = Some("Example-IX");
    assert_eq!(
        links,
        [
            (64496, 64497, Relation::Customer, None),
            (64496, 64498, Relation::Peer, ix),
            (64497, 64498, Relation::Peer, ix),
        ]
    );
    let link = &internet.links[0];
    assert_eq!((link.delay, link.loss), (Some(Duration::from_millis(95)), 0.001));
    assert_eq!(link.rate_bits_per_s, Some(10_000_000_000));
    assert_eq!(internet.links[1].delay, None);
    assert_eq!(internet.vantages[0].location, internet.networks[1].location);
    assert_eq!(internet.vantages[1].location.name, "Lyon, FR");
    assert_eq!(internet.network(Asn(64498)).unwrap().name, "Other");
    assert_eq!(internet.network(Asn(1)), None);
}

#[test]
fn too_many_implied_links_are_refused() {
    let mut text = String::from("name = \"big\"\n");
    for asn in 1..=600 {
        text += &format!("[[as]]\nasn = {asn}\nname = \"n\"\nlocation = \"AMS\"\n");
    }
    for ixp in 0..3 {
        let members: Vec<String> = (0..200).map(|m| (ixp * 200 + m + 1).to_string()).collect();
        text += &format!("[[ixp]]\nname = \"ix{ixp}\"\nlocation = \"AMS\"\nmembers = [{}]\n", members.join(", "));
    }
    let parsed = Internet::parse("i.toml", text.as_bytes());
    assert!(parsed.diagnostics.iter().any(|d| d.code == "E0106" && d.message.contains("links")));
}
