use super::*;

fn name(text: &str) -> String {
    Location::resolve(text).map(|l| l.name).unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn cities_by_name_country_case_and_accent() {
    for text in
        ["São Paulo, BR", "Sao Paulo, BR", "sao paulo,br", "SÃO PAULO, Brazil", "Sa\u{303}o Paulo", "GRU", "gru"]
    {
        assert_eq!(name(text), "São Paulo, BR", "{text}");
    }
    assert_eq!(name("Amsterdam, Netherlands"), "Amsterdam, NL");
    assert_eq!(name("Amsterdam, The Netherlands"), "Amsterdam, NL");
    assert_eq!(name("New York"), "New York City, US");
    assert_eq!(name("Frankfurt, DE"), "Frankfurt am Main, DE");
    assert_eq!(name("London, UK"), "London, GB");
    assert_eq!(name("Tokyo, JP"), "Tokyo, JP");
    assert_eq!(name("Ashburn, US"), "Ashburn, US");
    assert_eq!(name("AMS"), "Amsterdam, NL");
}

#[test]
fn most_populous_city_wins() {
    assert_eq!(name("London"), "London, GB");
    assert_eq!(name("San Jose"), "San Jose, US");
    assert_eq!(name("San José, CR"), "San José, CR");
    assert_eq!(name("Paris"), "Paris, FR");
}

#[test]
fn coordinates_and_their_range() {
    let place = Location::resolve(" 52.37, 4.90 ").unwrap();
    assert_eq!((place.latitude, place.longitude, place.name.as_str()), (52.37, 4.9, "52.37,4.9"));
    assert_eq!(name("-0,-0"), "0,0");
    assert_eq!(name("90,-180"), "90,-180");
    let error = Location::resolve("100.5,13.7").unwrap_err();
    assert!(error.fix().contains("13.7,100.5"), "{}", error.fix());
    assert!(matches!(Location::resolve("91,181"), Err(LocationError::OutOfRange { .. })));
    assert!(Location::resolve("NaN,5").is_err());
    assert!(Location::resolve("inf,5").is_err());
}

#[test]
fn suggestions() {
    assert_eq!(Location::resolve("Amsterdm, NL").unwrap_err().suggestions(), ["Amsterdam, NL"]);
    assert_eq!(Location::resolve("Lodnon").unwrap_err().suggestions()[0], "London, GB");
    assert_eq!(Location::resolve("Amsterdam, DE").unwrap_err().suggestions()[0], "Amsterdam, NL");
    assert_eq!(Location::resolve("Amsterdam, ZZ").unwrap_err().suggestions()[0], "Amsterdam, NL");
    assert!(Location::resolve("Qqqqqqqqqqq").unwrap_err().suggestions().is_empty());
    assert!(Location::resolve("").is_err());
    assert!(Location::resolve(",").is_err());
    assert!(Location::resolve(&"x".repeat(100_000)).is_err());
}

#[test]
fn every_listed_place_resolves_to_itself() {
    let mut count = 0;
    for city in cities() {
        count += 1;
        let degrees = [city.latitude, city.longitude].map(|d| d.parse::<f64>().unwrap());
        assert!(degrees[0].abs() <= 90.0 && degrees[1].abs() <= 180.0, "{}", city.name);
        assert_eq!(countries::code(city.country), Some(city.country), "{}", city.name);
    }
    assert_eq!(
        count,
        CITIES.lines().count() + places::SMALL_PLACES.lines().count(),
        "a line of cities.txt is malformed"
    );
    // A name in a country is that of its most populous bearer, so writing it out and reading it back is stable.
    for city in cities().take(300) {
        let place = city.location();
        assert_eq!(Location::resolve(&place.name).unwrap().name, place.name);
    }
}

#[test]
fn every_airport_and_alias_resolves() {
    assert!(airports::AIRPORTS.len() >= 250);
    for (code, city, country) in airports::AIRPORTS {
        assert_eq!(name(code), format!("{city}, {country}"), "{code}");
    }
    for (other, official, country) in places::OTHER_NAMES {
        let place = name(&format!("{other}, {country}"));
        assert_eq!(place, format!("{official}, {country}"), "{other}");
    }
}

#[test]
fn distances() {
    let [ams, lon, syd] = ["AMS", "LON", "SYD"].map(|c| Location::resolve(c).unwrap());
    assert!((ams.distance_km(&lon) - 357.0).abs() < 5.0, "{}", ams.distance_km(&lon));
    assert!((lon.distance_km(&syd) - 16_990.0).abs() < 50.0, "{}", lon.distance_km(&syd));
    assert_eq!(ams.distance_km(&ams), 0.0);
    let pole = |latitude| Location { name: String::new(), latitude, longitude: 0.0 };
    assert!((pole(90.0).distance_km(&pole(-90.0)) - 20_015.0).abs() < 1.0);
}
