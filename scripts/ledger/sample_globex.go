package main

// globexBooks are those of a firm that imports tools and sells them to shops.
func globexBooks() []sampleBook {
	return []sampleBook{keepBooks(business{
		company:    NewCompany{Name: "Globex Trading", Currency: "GBP", Chart: "standard"},
		accounts:   []Account{{"1150", "Bank deposit account", Asset}, {"4200", "Commissions", Income}},
		seed:       3,
		vat:        20,
		invoiceTag: "GX",
		opening: []Line{
			debit("1000", 185_20), debit("1100", 146_902_66), debit("1150", 60_000_00), debit("1200", 74_208_00),
			debit("1300", 128_640_00), debit("1600", 38_250_00), debit("1650", 29_900_00), credit("1690", 31_720_00),
			credit("2500", 90_000_00), credit("3000", 100_000_00), credit("3100", 256_365_86),
		},
		customers: []string{
			"Harwood Hardware", "Mercer & Sons", "Tidewater Supplies", "Brackley Builders Merchants", "Penrose Tools",
			"Northgate DIY", "Calder Valley Stores", "Ashdown Garden Centre", "Kestrel Marine", "Whitlow Farm Supplies",
			"Thornbury Ironmongers", "Larkfield Workshops", "Redcliffe Trade Counter",
		},
		jobs: []job{
			{"hand tools", "4000", 1400, 6800, 5},
			{"power tools", "4000", 2900, 11200, 5},
			{"fixings, pallet order", "4000", 900, 3600, 5},
			{"garden tools", "4000", 1100, 5200, 5},
			{"workwear", "4000", 600, 2800, 5},
			{"commission on a direct delivery", "4200", 240, 1300, 5},
		},
		invoices: [12]int{17, 18, 22, 24, 25, 23, 19, 16, 21, 23, 25, 18},
		supplies: []supply{
			{"Solberg Verktøy AS", "hand tools", "5000", 3200, 9800},
			{"Kessler Werkzeuge", "power tools", "5000", 4800, 14200},
			{"Baltic Fasteners", "fixings", "5000", 1200, 4400},
			{"Ferraris Giardino", "garden tools", "5000", 1900, 6100},
			{"Oakham Textiles", "workwear", "5000", 800, 3100},
			{"Humber Freight", "sea freight and haulage", "5200", 380, 1600},
			{"Harbour Clearing", "customs clearance", "5200", 90, 420},
		},
		purchases: 9,
		costs: []cost{
			{1, 3, 1, "Rent of the warehouse, quarter", 10_800, 0, false, "6200"},
			{9, 1, 1, "Electricity and heating", 880, 30, false, "6210"},
			{14, 1, 1, "Waste and cleaning", 310, 10, false, "6220"},
			{4, 3, 2, "Insurance, stock and liability", 1960, 0, true, "6300"},
			{19, 1, 1, "Fuel and tolls", 740, 25, false, "6400"},
			{12, 1, 1, "Telephone and internet", 168, 0, false, "6500"},
			{3, 1, 1, "Inventory software, subscription", 290, 0, false, "6510"},
			{21, 2, 1, "Office supplies", 130, 40, false, "6520"},
			{16, 3, 3, "Printed catalogue", 1850, 15, false, "6600"},
			{26, 3, 3, "Accountants' fee, Marlow Pryce", 1450, 0, false, "6700"},
		},
		wages:      16_400,
		loan:       2_500,
		interest:   5,
		writeOff:   2_640,
		taxAdvance: 6_000,
		stockCents: 6_482_75,
	})}
}
