package observe

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
)

// Formats are the ways to show events.
var Formats = []string{"compact", "table", "dict", "jsonl", "json"}

// Printer writes events. It belongs to one goroutine.
type Printer struct {
	Format     string // of Formats
	NodeNames  bool
	Names      bool // of policies that allowed
	TimeLayout string
	// Paint colours a word by its verdict, or leaves it.
	Paint func(word string) string

	out   *bufio.Writer
	table *tabwriter.Writer
	lines int
}

// NewPrinter returns a printer that writes to out what is flushed.
func NewPrinter(out io.Writer, format string) *Printer {
	p := &Printer{Format: format, TimeLayout: time.StampMilli, Paint: func(s string) string { return s }, out: bufio.NewWriter(out)}
	if format == "table" {
		p.table = tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	}
	return p
}

// Print adds an event.
func (p *Printer) Print(e *Event) error {
	p.lines++
	switch p.Format {
	case "jsonl":
		return p.json(&e.Flow)
	case "json":
		for _, v := range e.Views {
			// Its own encoder puts spaces in at random.
			b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(v)
			if err == nil {
				err = p.json(json.RawMessage(b))
			}
			if err != nil {
				return fmt.Errorf("write flow: %w", err)
			}
		}
		return nil
	case "dict":
		return p.dict(e)
	case "table":
		return p.row(e)
	}
	return p.compact(e)
}

// Flush writes what is held back. A table is held until its end.
func (p *Printer) Flush() error {
	if err := p.out.Flush(); err != nil {
		return fmt.Errorf("write flows: %w", err)
	}
	return nil
}

// Close ends a table, and flushes.
func (p *Printer) Close() error {
	if p.table != nil {
		if err := p.table.Flush(); err != nil {
			return fmt.Errorf("write flows: %w", err)
		}
	}
	return p.Flush()
}

func (p *Printer) json(v any) error {
	enc := json.NewEncoder(p.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func (p *Printer) time(e *Event) string { return e.Time.Local().Format(p.TimeLayout) }

func (p *Printer) compact(e *Event) error {
	var b strings.Builder
	b.WriteString(p.time(e) + " ")
	if p.NodeNames {
		b.WriteString("[" + e.Node + "] ")
	}
	b.WriteString(p.Paint(fmt.Sprintf("%-9s", e.Word())) + " ")
	if e.Event == Lost {
		b.WriteString(e.missing())
	} else {
		arrow, src, dst := " -> ", EndText(&e.Src, true), EndText(&e.Dst, true)
		if e.Reply {
			arrow, src, dst = " <- ", dst, src
		}
		b.WriteString(src + arrow + dst + " " + e.ProtoText())
		if cause := e.Cause(p.Names); cause != "" {
			b.WriteString(" " + cause)
		}
	}
	b.WriteByte('\n')
	_, err := p.out.WriteString(b.String())
	return err
}

func (p *Printer) dict(e *Event) error {
	var b strings.Builder
	if p.lines > 1 {
		b.WriteString("------------\n")
	}
	line := func(key, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%11s: %s\n", key, value)
		}
	}
	line("TIMESTAMP", p.time(e))
	if p.NodeNames {
		line("NODE", e.Node)
	}
	if e.Event == Lost {
		line("LOST", e.missing())
	} else {
		line("SOURCE", EndText(&e.Src, true))
		line("DESTINATION", EndText(&e.Dst, true))
		line("TYPE", e.Event)
		line("VERDICT", p.Paint(e.Word()))
		line("SUMMARY", e.ProtoText())
		line("CAUSE", e.Cause(p.Names))
	}
	_, err := p.out.WriteString(b.String())
	return err
}

func (p *Printer) row(e *Event) error {
	node := func(s string) string {
		if !p.NodeNames {
			return ""
		}
		return s + "\t"
	}
	if p.lines == 1 {
		fmt.Fprintf(p.table, "TIMESTAMP\t%sVERDICT\tSOURCE\tDESTINATION\tPROTOCOL\tEVENT\tCAUSE\n", node("NODE"))
	}
	if e.Event == Lost {
		_, err := fmt.Fprintf(p.table, "%s\t%s%s\t\t\t\t\t%s\n", p.time(e), node(e.Node), e.Word(), e.missing())
		return err
	}
	_, err := fmt.Fprintf(p.table, "%s\t%s%s\t%s\t%s\t%s\t%s\t%s\n", p.time(e), node(e.Node), e.Word(), EndText(&e.Src, true),
		EndText(&e.Dst, true), e.ProtoText(), e.Event, e.Cause(p.Names))
	return err
}

// PrintWith adds an event with one field more, in the format jsonl.
func (p *Printer) PrintWith(e *Event, name string, value json.RawMessage) error {
	text, err := json.Marshal(&e.Flow)
	if err != nil {
		return fmt.Errorf("write flow: %w", err)
	}
	key, err := json.Marshal(name)
	if err != nil {
		return fmt.Errorf("write flow: %w", err)
	}
	line := append(text[:len(text)-1], ',')
	line = append(append(append(line, key...), ':'), value...)
	return p.json(json.RawMessage(append(line, '}')))
}

// Under adds lines that belong to the last event.
func (p *Printer) Under(text string) error {
	for line := range strings.Lines(text) {
		if _, err := p.out.WriteString("    " + strings.TrimRight(line, "\n") + "\n"); err != nil {
			return fmt.Errorf("write flow: %w", err)
		}
	}
	return nil
}
