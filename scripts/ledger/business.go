package main

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// sampleYear is the year that the sample books cover.
const sampleYear = 2026

// business describes a firm well enough to keep its books for a year. Amounts
// are in whole units of its currency and without VAT, unless they say Cents.
type business struct {
	company  NewCompany
	accounts []Account // beyond the standard chart
	seed     uint64

	opening   []Line // of the balance sheet at the beginning of the year
	vat       Cents  // per cent
	customers []string
	jobs      []job
	invoices  [12]int // how many in each month
	supplies  []supply
	purchases int // a month
	costs     []cost
	deals     []deal

	wages      Cents  // a month, gross
	extraPay   []int  // months in which wages are paid twice
	loan       Cents  // repaid a month
	interest   Cents  // per cent a year
	writeOff   Cents  // depreciation a quarter
	taxAdvance Cents  // corporation tax a quarter
	stockCents Cents  // change of inventories at the end of the year
	invoiceTag string // before the numbers of its own invoices
}

// job is what customers are billed for.
type job struct {
	text      string
	account   string
	low, high Cents
	step      Cents // prices are multiples of it
}

// supply is what is bought again and again.
type supply struct {
	supplier, text string
	account        string
	low, high      Cents
}

// cost falls due on the same day every so many months, and is paid at once.
type cost struct {
	day    int
	every  int // months
	first  int // month
	text   string
	net    Cents
	vary   Cents // per cent by which it varies
	exempt bool  // from VAT
	to     string
}

// delivery is one invoice agreed beforehand between two firms.
type delivery struct {
	month, day int
	number     string
	text       string
	net        Cents
}

// deal is a delivery as one of the two firms books it.
type deal struct {
	delivery
	partner string
	account string
	buys    bool
}

// keeper keeps a business's books.
type keeper struct {
	business
	rng      *rand.Rand
	vouchers []Voucher
	invoice  int   // number of the last invoice
	loanLeft Cents // in cents
}

// keepBooks makes b's books: the same ones each time.
func keepBooks(b business) sampleBook {
	k := &keeper{business: b, rng: rand.New(rand.NewPCG(sampleYear, b.seed))}
	for _, l := range b.opening {
		if l.Account == "2500" {
			k.loanLeft = l.Credit
		}
	}
	k.post(k.day(1, 1), "Opening balances brought forward", "", b.opening...)
	for month := 1; month <= 12; month++ {
		k.sell(month)
		k.buy(month)
		k.payCosts(month)
		k.payWages(month)
		k.payBank(month)
		k.payCash(month)
		k.settleVAT(month)
		if month%3 == 0 {
			k.closeQuarter(month)
		}
	}
	grown, shrunk := max(b.stockCents, 0), max(-b.stockCents, 0)
	k.post(k.day(12, 31), "Stocktaking at year end", "",
		debit("1300", grown), credit("5300", grown), debit("5300", shrunk), credit("1300", shrunk))
	slices.SortStableFunc(k.vouchers, func(x, y Voucher) int { return cmp.Compare(x.Date, y.Date) })
	return sampleBook{b.company, b.accounts, k.vouchers}
}

func debit(account string, c Cents) Line  { return Line{Account: account, Debit: c} }
func credit(account string, c Cents) Line { return Line{Account: account, Credit: c} }

// day is a day of the sample year; past the end of a month it runs into the
// next, past the end of the year out of the sample.
func (k *keeper) day(month, day int) time.Time {
	return time.Date(sampleYear, time.Month(month), day, 0, 0, 0, 0, time.UTC)
}

// workday is t, or the Monday after it.
func workday(t time.Time) time.Time {
	switch t.Weekday() {
	case time.Saturday:
		return t.AddDate(0, 0, 2)
	case time.Sunday:
		return t.AddDate(0, 0, 1)
	}
	return t
}

// post notes a voucher, without lines of no amount. One that falls after the
// sample's year is left out: what it would settle stays open.
func (k *keeper) post(t time.Time, text, reference string, lines ...Line) {
	if t.Year() != sampleYear {
		return
	}
	lines = slices.DeleteFunc(slices.Clone(lines), func(l Line) bool { return l.Debit == 0 && l.Credit == 0 })
	k.vouchers = append(k.vouchers, Voucher{Date: dateOf(t), Text: text, Reference: reference, Lines: lines})
}

// vatOn is the VAT on an amount, to the nearest cent.
func (k *keeper) vatOn(net Cents) Cents { return (net*k.vat + 50) / 100 }

// between is an amount in cents from low to high, in multiples of step cents.
func (k *keeper) between(low, high, step Cents) Cents {
	return low + Cents(k.rng.Int64N(int64((high-low)/step)+1))*step
}

// sell bills the month's jobs and deals in the order of their days, and has
// most of them paid within six weeks.
func (k *keeper) sell(month int) {
	type sale struct {
		day                 int
		customer, text, ref string
		account             string
		net                 Cents
		paidAfter           int // days
	}
	var sales []sale
	for range k.invoices[month-1] {
		j := k.jobs[k.rng.IntN(len(k.jobs))]
		sales = append(sales, sale{
			day:       1 + k.rng.IntN(28),
			customer:  k.customers[k.rng.IntN(len(k.customers))],
			text:      j.text,
			account:   j.account,
			net:       k.between(j.low*100, j.high*100, j.step*100),
			paidAfter: 6 + k.rng.IntN(36),
		})
	}
	for _, d := range k.deals {
		if d.month == month && !d.buys {
			sales = append(sales, sale{d.day, d.partner, d.text, d.number, d.account, d.net * 100, 14})
		}
	}
	slices.SortStableFunc(sales, func(x, y sale) int { return cmp.Compare(x.day, y.day) })
	for _, s := range sales {
		if s.ref == "" {
			k.invoice++
			s.ref = fmt.Sprintf("%s-%d-%03d", k.invoiceTag, sampleYear, k.invoice)
		}
		vat := k.vatOn(s.net)
		t := workday(k.day(month, s.day))
		k.post(t, s.customer+": "+s.text, s.ref, debit("1200", s.net+vat), credit(s.account, s.net), credit("2100", vat))
		k.post(workday(t.AddDate(0, 0, s.paidAfter)), "Payment received from "+s.customer, s.ref,
			debit("1100", s.net+vat), credit("1200", s.net+vat))
	}
}

// buy takes the month's supplies and deals on credit, and pays them in time.
func (k *keeper) buy(month int) {
	for range k.purchases {
		s := k.supplies[k.rng.IntN(len(k.supplies))]
		net := k.between(s.low*100, s.high*100, 1)
		ref := fmt.Sprintf("%d", 10_000+k.rng.IntN(89_999))
		k.purchase(workday(k.day(month, 1+k.rng.IntN(28))), 10+k.rng.IntN(21), s.supplier, s.text, ref, s.account, net)
	}
	for _, d := range k.deals {
		if d.month == month && d.buys {
			k.purchase(workday(k.day(month, d.day)), 14, d.partner, d.text, d.number, d.account, d.net*100)
		}
	}
}

func (k *keeper) purchase(t time.Time, paidAfter int, supplier, text, ref, account string, net Cents) {
	vat := k.vatOn(net)
	k.post(t, supplier+": "+text, ref, debit(account, net), debit("1400", vat), credit("2000", net+vat))
	k.post(workday(t.AddDate(0, 0, paidAfter)), "Payment to "+supplier, ref, debit("2000", net+vat), credit("1100", net+vat))
}

// payCosts pays what falls due in the month.
func (k *keeper) payCosts(month int) {
	for _, c := range k.costs {
		if month < c.first || (month-c.first)%c.every != 0 {
			continue
		}
		net := c.net * 100
		if c.vary > 0 {
			net = k.between(net-c.net*c.vary, net+c.net*c.vary, 1)
		}
		vat := k.vatOn(net)
		if c.exempt {
			vat = 0
		}
		k.post(workday(k.day(month, c.day)), c.text, "", debit(c.to, net), debit("1400", vat), credit("1100", net+vat))
	}
}

// payWages books the month's payroll, pays it, and hands the deductions over a
// fortnight later.
func (k *keeper) payWages(month int) {
	gross := k.wages * 100
	text := "Payroll " + time.Month(month).String()
	if slices.Contains(k.extraPay, month) {
		gross, text = 2*gross, text+" with special payment"
	}
	net := gross * 68 / 100
	employer := gross * 21 / 100
	deductions := gross - net + employer
	k.post(workday(k.day(month, 25)), text, "", debit("6000", gross), debit("6100", employer), credit("2200", net), credit("2250", deductions))
	k.post(workday(k.day(month, 27)), "Wages paid for "+time.Month(month).String(), "", debit("2200", net), credit("1100", net))
	k.post(workday(k.day(month+1, 15)), "Payroll tax and social security for "+time.Month(month).String(), "",
		debit("2250", deductions), credit("1100", deductions))
}

// payBank pays the month's instalment on the loan and the bank's charges.
func (k *keeper) payBank(month int) {
	charges := k.between(1800, 4200, 1)
	k.post(workday(k.day(month, 28)), "Account charges "+time.Month(month).String(), "", debit("6800", charges), credit("1100", charges))
	if k.loanLeft == 0 {
		return
	}
	interest := k.loanLeft * k.interest / 1200
	k.loanLeft -= k.loan * 100
	k.post(workday(k.day(month, 5)), "Loan instalment "+time.Month(month).String(), "",
		debit("2500", k.loan*100), debit("7000", interest), credit("1100", k.loan*100+interest))
}

// payCash draws cash and pays a few small things with it.
func (k *keeper) payCash(month int) {
	k.post(workday(k.day(month, 4)), "Cash drawn from the bank", "", debit("1000", 120_00), credit("1100", 120_00))
	for _, c := range []struct{ text, account string }{
		{"Postage", "6520"}, {"Coffee and water for the office", "6520"}, {"Parking", "6400"},
	} {
		net := k.between(9_00, 33_00, 5)
		vat := k.vatOn(net)
		k.post(workday(k.day(month, 5+k.rng.IntN(22))), c.text, "", debit(c.account, net), debit("1400", vat), credit("1000", net+vat))
	}
}

// settleVAT clears the month's VAT at its end and pays it, or has it repaid, a
// fortnight later.
func (k *keeper) settleVAT(month int) {
	var input, output Cents
	for _, v := range k.vouchers {
		if v.Date.Time().Month() != time.Month(month) {
			continue
		}
		for _, l := range v.Lines {
			switch l.Account {
			case "1400":
				input += l.Debit - l.Credit
			case "2100":
				output += l.Credit - l.Debit
			}
		}
	}
	name := time.Month(month).String()
	due := output - input
	k.post(k.day(month+1, 0), "VAT return "+name, "", debit("2100", output), credit("1400", input),
		debit("2150", max(-due, 0)), credit("2150", max(due, 0)))
	paid := workday(k.day(month+1, 15))
	if due >= 0 {
		k.post(paid, "VAT paid for "+name, "", debit("2150", due), credit("1100", due))
	} else {
		k.post(paid, "VAT repaid for "+name, "", debit("1100", -due), credit("2150", -due))
	}
}

// closeQuarter books depreciation and pays the advance on corporation tax.
func (k *keeper) closeQuarter(month int) {
	quarter := fmt.Sprintf("quarter %d", month/3)
	k.post(k.day(month+1, 0), "Depreciation, "+quarter, "", debit("6900", k.writeOff*100), credit("1690", k.writeOff*100))
	k.post(workday(k.day(month, 15)), "Advance on corporation tax, "+quarter, "",
		debit("7900", k.taxAdvance*100), credit("1100", k.taxAdvance*100))
}
