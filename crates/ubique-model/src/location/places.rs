//! Places below the size of the city table that matter to networks, and English or older names of cities.

/// In the format of the city table.
pub(super) static SMALL_PLACES: &str = "\
Ashburn||US|39.044|-77.487
Reston||US|38.969|-77.341
Palo Alto||US|37.442|-122.143
Secaucus||US|40.790|-74.057
Council Bluffs||US|41.262|-95.861
The Dalles||US|45.595|-121.179
Boardman||US|45.840|-119.701
Burlington||US|44.476|-73.212
Bangor||US|44.801|-68.778
Helena||US|46.589|-112.039
Cheyenne||US|41.140|-104.820
Bluffdale||US|40.490|-111.939
Gravelines||FR|50.986|2.128
Roubaix||FR|50.694|3.175
Lulea||SE|65.584|22.155
Hamina||FI|60.570|27.198
Eemshaven||NL|53.438|6.835
Haarlemmermeer||NL|52.300|4.690
Saint-Ghislain||BE|50.449|3.819
Svalbard||SJ|78.223|15.647
Tromso||NO|69.649|18.955
Fujairah||AE|25.129|56.326
Kochi||IN|9.931|76.267
Phuket||TH|7.890|98.398
Larnaca||CY|34.918|33.623
Venice||IT|45.437|12.335
McMurdo Station||AQ|-77.846|166.676
";

/// Another name, the name in the city table, country.
pub(super) const OTHER_NAMES: &[(&str, &str, &str)] = &[
    ("New York", "New York City", "US"),
    ("NYC", "New York City", "US"),
    ("Washington DC", "Washington", "US"),
    ("Washington D.C.", "Washington", "US"),
    ("Frankfurt", "Frankfurt am Main", "DE"),
    ("Cologne", "Köln", "DE"),
    ("Nuremberg", "Nürnberg", "DE"),
    ("Hanover", "Hannover", "DE"),
    ("Dusseldorf", "Düsseldorf", "DE"),
    ("München", "Munich", "DE"),
    ("Muenchen", "Munich", "DE"),
    ("Geneva", "Genève", "CH"),
    ("Berne", "Bern", "CH"),
    ("Wien", "Vienna", "AT"),
    ("Praha", "Prague", "CZ"),
    ("Warszawa", "Warsaw", "PL"),
    ("Cracow", "Kraków", "PL"),
    ("København", "Copenhagen", "DK"),
    ("Gothenburg", "Göteborg", "SE"),
    ("Antwerp", "Antwerpen", "BE"),
    ("Bruxelles", "Brussels", "BE"),
    ("Brussel", "Brussels", "BE"),
    ("Den Haag", "The Hague", "NL"),
    ("Lisboa", "Lisbon", "PT"),
    ("Seville", "Sevilla", "ES"),
    ("Roma", "Rome", "IT"),
    ("Milano", "Milan", "IT"),
    ("Torino", "Turin", "IT"),
    ("Napoli", "Naples", "IT"),
    ("Firenze", "Florence", "IT"),
    ("București", "Bucharest", "RO"),
    ("Bucuresti", "Bucharest", "RO"),
    ("Kiev", "Kyiv", "UA"),
    ("Moskva", "Moscow", "RU"),
    ("St. Petersburg", "Saint Petersburg", "RU"),
    ("Bangalore", "Bengaluru", "IN"),
    ("Bombay", "Mumbai", "IN"),
    ("Madras", "Chennai", "IN"),
    ("Calcutta", "Kolkata", "IN"),
    ("Saigon", "Ho Chi Minh City", "VN"),
    ("Macao", "Macau", "MO"),
    ("Ciudad de México", "Mexico City", "MX"),
    ("Ciudad de Mexico", "Mexico City", "MX"),
    ("Quebec City", "Québec", "CA"),
    ("Peking", "Beijing", "CN"),
    ("Canton", "Guangzhou", "CN"),
    ("Luleå", "Lulea", "SE"),
    ("Tromsø", "Tromso", "NO"),
];
