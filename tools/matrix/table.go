package matrix

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// widest is how wide a cell of a table gets before it becomes a letter.
const widest = 12

// legend gives letters to sets of ports that are too long for a cell.
type legend struct {
	letters map[string]string
	order   []string
}

func (l *legend) letter(ports string) string {
	if l.letters == nil {
		l.letters = map[string]string{}
	}
	s, ok := l.letters[ports]
	if !ok {
		n := len(l.order)
		for s = string(rune('a' + n%26)); n >= 26; s = string(rune('a'+n%26)) + s {
			n = n/26 - 1
		}
		l.letters[ports] = s
		l.order = append(l.order, ports)
	}
	return s
}

// text is what a table shows of a cell.
func (c *Cell) text(l *legend) string {
	switch c.State {
	case Self, Nothing:
		return ""
	case All:
		return "all"
	case None:
		return "-"
	}
	ports := c.Ports.String()
	if utf8.RuneCountInString(ports) > widest {
		ports = l.letter(ports)
	}
	if c.State == Mixed {
		ports += "?"
	}
	return ports
}

// WriteTable writes the matrix as text: rows talk to columns, which have the
// rows' numbers.
func (m *Matrix) WriteTable(w io.Writer) error {
	var l legend
	cells := make([][]string, len(m.Groups))
	widths := make([]int, len(m.Groups))
	names := len("FROM / TO")
	for i, g := range m.Groups {
		names = max(names, utf8.RuneCountInString(g.Name))
		widths[i] = len(fmt.Sprint(i + 1))
	}
	mixed := false
	for i := range m.Cells {
		cells[i] = make([]string, len(m.Groups))
		for j := range m.Cells[i] {
			cells[i][j] = m.Cells[i][j].text(&l)
			widths[j] = max(widths[j], utf8.RuneCountInString(cells[i][j]))
			mixed = mixed || m.Cells[i][j].State == Mixed
		}
	}
	var b strings.Builder
	number := len(fmt.Sprint(len(m.Groups)))
	line := func(first, name string, cell func(j int) string) {
		row := fmt.Sprintf("%*s  %-*s", number, first, names, name)
		for j := range m.Groups {
			row += fmt.Sprintf("  %-*s", widths[j], cell(j))
		}
		b.WriteString(strings.TrimRight(row, " ") + "\n")
	}
	line("", "FROM / TO", func(j int) string { return fmt.Sprint(j + 1) })
	for i, g := range m.Groups {
		line(fmt.Sprint(i+1), g.Name, func(j int) string { return cells[i][j] })
	}
	b.WriteString("\nall: every port; -: none; empty: nothing to judge\n")
	if mixed {
		b.WriteString("?: open to all, the rest depends on the member, its node or the IP family\n")
	}
	for _, ports := range l.order {
		fmt.Fprintf(&b, "%s: %s\n", l.letters[ports], ports)
	}
	for _, f := range m.Faults {
		fmt.Fprintf(&b, "left out: %s\n", f)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
