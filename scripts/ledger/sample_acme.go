package main

// acmeBooks are those of a small joinery: the workshop, and the firm that
// sells and fits its kitchens. The one delivers to the other.
func acmeBooks() []sampleBook {
	var sold, bought []deal
	for _, d := range []delivery{
		{1, 19, "WS-2026-101", "carcasses for two kitchens", 5480},
		{2, 16, "WS-2026-102", "fronts in oak, kitchen Lehner", 3920},
		{3, 17, "WS-2026-103", "wardrobes, Hotel Seeblick", 9650},
		{4, 20, "WS-2026-104", "carcasses for three kitchens", 7740},
		{5, 18, "WS-2026-105", "staircase, house Aigner", 8210},
		{6, 16, "WS-2026-106", "fronts in walnut, kitchen Moser", 4860},
		{7, 14, "WS-2026-107", "reception desk, Praxis Dr. Wolf", 6120},
		{9, 15, "WS-2026-108", "carcasses for four kitchens", 10320},
		{10, 19, "WS-2026-109", "panelling, Café Zentral", 7380},
		{11, 16, "WS-2026-110", "shelving, Stadtbücherei", 8890},
		{12, 9, "WS-2026-111", "fronts in ash, kitchen Pichler", 4150},
	} {
		sold = append(sold, deal{d, "Acme Interiors", "4000", false})
		bought = append(bought, deal{d, "Acme Joinery", "5000", true})
	}
	return []sampleBook{keepBooks(acmeJoinery(sold)), keepBooks(acmeInteriors(bought))}
}

func acmeJoinery(deals []deal) business {
	return business{
		company:    NewCompany{Name: "Acme Joinery", Currency: "EUR", Chart: "standard"},
		seed:       1,
		vat:        20,
		invoiceTag: "AJ",
		opening: []Line{
			debit("1000", 612_40), debit("1100", 58_214_73), debit("1200", 18_960_00), debit("1300", 31_450_00),
			debit("1600", 96_800_00), debit("1650", 41_500_00), credit("1690", 52_300_00), credit("2500", 48_000_00),
			credit("3000", 35_000_00), credit("3100", 112_237_13),
		},
		customers: []string{
			"Familie Aigner", "Hausverwaltung Brandl", "Gasthof zur Post", "Architekturbüro Ebner", "Bäckerei Fink",
			"Gemeinde Traunfeld", "Praxis Dr. Hollerer", "Familie Kaltenbrunner", "Weingut Leitgeb", "Pfarre St. Michael",
			"Ordination Dr. Nagl", "Autohaus Pirker", "Familie Reisinger", "Schulverein Süd", "Optik Trummer",
		},
		jobs: []job{
			{"built-in wardrobe", "4000", 1800, 4600, 20},
			{"dining table and bench in oak", "4000", 1450, 3200, 10},
			{"interior doors", "4000", 1200, 5200, 40},
			{"staircase renovated", "4100", 900, 3800, 20},
			{"window repairs", "4100", 320, 1400, 10},
			{"shop counter", "4000", 2600, 7800, 50},
			{"floor sanded and oiled", "4100", 680, 2400, 10},
			{"kitchen worktop replaced", "4000", 780, 2200, 10},
		},
		invoices: [12]int{9, 10, 12, 12, 13, 13, 10, 7, 13, 14, 13, 11},
		supplies: []supply{
			{"Holzhandel Gruber", "oak boards", "5000", 640, 2900},
			{"Holzhandel Gruber", "plywood and MDF panels", "5000", 380, 1700},
			{"Beschläge Hafner", "hinges and runners", "5000", 120, 780},
			{"Lacke & Öle Kern", "oil, lacquer, abrasives", "5000", 90, 460},
			{"Glas Steiner", "glass cut to size", "5000", 180, 940},
			{"Spedition Danner", "freight", "5200", 70, 260},
			{"Montage Lang", "help with fitting", "5100", 420, 1500},
		},
		purchases: 8,
		costs: []cost{
			{1, 1, 1, "Rent of the workshop", 1850, 0, false, "6200"},
			{8, 1, 1, "Electricity and heating", 520, 30, false, "6210"},
			{11, 1, 1, "Waste wood collected", 140, 15, false, "6220"},
			{3, 3, 1, "Insurance, quarterly premium", 1240, 0, true, "6300"},
			{18, 1, 1, "Fuel for the vans", 390, 25, false, "6400"},
			{12, 6, 3, "Service and tyres, vans", 860, 20, false, "6400"},
			{10, 1, 1, "Telephone and internet", 89, 0, false, "6500"},
			{2, 1, 1, "Drawing software, subscription", 125, 0, false, "6510"},
			{20, 2, 2, "Office supplies", 85, 40, false, "6520"},
			{22, 3, 2, "Advertisement in the local paper", 340, 10, false, "6600"},
			{24, 3, 3, "Bookkeeping and payroll, Steuerberatung Winkler", 690, 0, false, "6700"},
		},
		deals:      deals,
		wages:      14_600,
		extraPay:   []int{6, 11},
		loan:       1_000,
		interest:   4,
		writeOff:   4_150,
		taxAdvance: 1_500,
		stockCents: 2_318_50,
	}
}

func acmeInteriors(deals []deal) business {
	return business{
		company:    NewCompany{Name: "Acme Interiors", Currency: "EUR", Chart: "standard"},
		seed:       2,
		vat:        20,
		invoiceTag: "AI",
		opening: []Line{
			debit("1000", 240_00), debit("1100", 64_870_15), debit("1200", 12_480_00), debit("1300", 16_900_00),
			debit("1600", 24_600_00), credit("1690", 9_200_00), credit("2500", 18_000_00),
			credit("3000", 35_000_00), credit("3100", 56_890_15),
		},
		customers: []string{
			"Familie Lehner", "Hotel Seeblick", "Familie Moser", "Café Zentral", "Praxis Dr. Wolf", "Stadtbücherei",
			"Familie Pichler", "Kanzlei Strasser", "Familie Ortner", "Zahnarzt Dr. Vogl", "Boutique Amalia",
		},
		jobs: []job{
			{"fitted kitchen, part payment", "4000", 5600, 13200, 100},
			{"planning and site survey", "4100", 280, 960, 20},
			{"fitting", "4100", 640, 2100, 20},
			{"household appliances", "4000", 1100, 3900, 10},
			{"lighting", "4000", 380, 1600, 10},
			{"curtains and blinds", "4000", 420, 1900, 10},
		},
		invoices: [12]int{8, 9, 10, 10, 11, 11, 9, 6, 11, 12, 11, 10},
		supplies: []supply{
			{"Elektro Wagner", "household appliances", "5000", 780, 3300},
			{"Licht & Form", "luminaires", "5000", 210, 980},
			{"Textil Haas", "fabrics", "5000", 160, 740},
			{"Steinmetz Rauch", "worktops", "5000", 620, 2200},
			{"Montage Lang", "fitting", "5100", 480, 1500},
		},
		purchases: 5,
		costs: []cost{
			{1, 1, 1, "Rent of the showroom", 2100, 0, false, "6200"},
			{8, 1, 1, "Electricity and heating", 260, 30, false, "6210"},
			{15, 1, 1, "Cleaning of the showroom", 180, 0, false, "6220"},
			{6, 6, 1, "Insurance, half-yearly premium", 980, 0, true, "6300"},
			{10, 1, 1, "Telephone and internet", 74, 0, false, "6500"},
			{2, 1, 1, "Planning software, subscription", 149, 0, false, "6510"},
			{17, 2, 1, "Advertising online", 420, 25, false, "6600"},
			{9, 12, 3, "Stand at the home fair", 2850, 0, false, "6600"},
			{24, 3, 3, "Bookkeeping and payroll, Steuerberatung Winkler", 540, 0, false, "6700"},
		},
		deals:      deals,
		wages:      5_900,
		extraPay:   []int{6, 11},
		loan:       500,
		interest:   4,
		writeOff:   1_230,
		taxAdvance: 875,
		stockCents: -1_140_00,
	}
}
