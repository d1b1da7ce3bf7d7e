package report

import (
	"bytes"
	"fmt"
	"html/template"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sluice-net/sluice/bench/plot"
	"github.com/sluice-net/sluice/bench/scenario"
)

// Nothing in the page is fetched from anywhere.
var page = template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>sluice bench, {{.Started}}</title>
<style>
body { font: 15px/1.5 Go, Helvetica, Arial, sans-serif; color: #222; max-width: 820px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em; border-top: 1px solid #ddd; padding-top: 1em }
table { border-collapse: collapse; font-size: 13px } td, th { border: 1px solid #ddd; padding: 3px 8px; text-align: left; vertical-align: top }
svg { max-width: 100%; height: auto } pre { overflow-x: auto; background: #f6f6f6; padding: 1em; font-size: 12px }
.warn { color: #b02020 }
</style></head><body>
<h1>What a pod pays for policy: sluice bench</h1>
{{if .Partial}}<p class="warn"><b>Partial results: {{.Partial}}.</b></p>{{end}}
<table>
{{range .Setting}}<tr><th>{{.Name}}</th><td>{{.Text}}</td></tr>
{{end}}</table>
<h2>How to read this</h2>
<p>Every bar is the median of {{.Runs}} interleaved runs, every dot one run. Ratios are medians of the ratios of
neighbouring runs, so that drift of the machine cancels out; <b>~</b> marks a difference that is no larger than its
spread: read it as “no difference was shown”. Where the generator itself was the limit, the figure says so.</p>
<p><b>What this does not show:</b> pods here are network namespaces behind veth pairs on one machine, AF_XDP works in
copy mode there, and generator, system and sink share its CPUs. Numbers compare systems under these conditions; they are
not the speed of any of them on a network card.</p>
<h2>Systems</h2>
<table>{{range .Systems}}<tr><th>{{.Name}}</th><td>{{.Text}}</td></tr>
{{end}}</table>
{{if .Outcomes}}<h2>Targets</h2>
<p>What the project wants to reach on a machine of two CPUs, side by side in one run.</p>
<table><tr><th>Target</th><th>Want</th><th>Got, median (from, to)</th><th></th></tr>
{{range .Outcomes}}<tr><td>{{.What}}</td><td>{{.Want}}</td><td>{{.Got}}</td><td>{{.Verdict}}{{if .Where}}<br>
<small>where the time goes: {{.Where}}</small>{{end}}</td></tr>
{{end}}</table>{{end}}
{{if .Skipped}}<h2>Skipped</h2><ul>{{range .Skipped}}<li>{{.}}</li>{{end}}</ul>{{end}}
{{if .Failures}}<h2 class="warn">Failed</h2><ul>{{range .Failures}}<li><pre>{{.}}</pre></li>{{end}}</ul>{{end}}
<h2>Figures</h2>
{{range .Plots}}<figure id="{{.Name}}">
{{.SVG}}</figure>
{{end}}
{{if .Profiles}}<h2>Hottest functions</h2>
<p>Of what was profiled, as parts of the busy time of all CPUs; the figures above sort all of them by stage.</p>
{{range .Profiles}}<details><summary>{{.Workload}}, {{.System}}: {{.Samples}} samples</summary>
<table>{{range .Symbols}}<tr><td>{{.Percent}}</td><td><code>{{.Name}}</code></td></tr>
{{end}}</table></details>
{{end}}{{end}}
<h2>All numbers</h2>
<pre>{{.Table}}</pre>
</body></html>
`))

type pair struct{ Name, Text string }

type drawn struct {
	Name string
	SVG  template.HTML
}

// WriteHTML writes one page that shows and explains the results.
func WriteHTML(out io.Writer, r *scenario.Results) error {
	var table bytes.Buffer
	if err := r.WriteTable(&table); err != nil {
		return err
	}
	var plots []drawn
	for _, p := range Plots(r) {
		var b bytes.Buffer
		if err := plot.SVG(&b, p.Figure); err != nil {
			return fmt.Errorf("draw %s: %w", p.Name, err)
		}
		plots = append(plots, drawn{p.Name, template.HTML(b.String())}) // texts in it are escaped by plot.SVG
	}
	return page.Execute(out, map[string]any{
		"Started": r.Started.Format(time.RFC3339), "Partial": r.Partial, "Runs": r.Runs,
		"Setting": about(r), "Systems": pairs(r.Systems), "Skipped": r.Skipped, "Failures": r.Failures,
		"Outcomes": Outcomes(r), "Plots": plots, "Profiles": r.Profiles, "Table": table.String(),
	})
}

// about is where, when and how the results were made.
func about(r *scenario.Results) []pair {
	m := r.Machine
	list := []pair{
		{"Command", r.Command},
		{"When", r.Started.Format(time.RFC3339)},
		{"Took", r.Finished.Sub(r.Started).Round(time.Second).String()},
		{"CPU", fmt.Sprintf("%d × %s", m.CPUs, m.CPU)},
		{"Machine", m.Virtual},
		{"Memory", fmt.Sprintf("%d MB", m.MemoryMB)},
		{"Kernel", m.Kernel},
		{"Frequency governor", m.Governor},
		{"CPUs kept awake", map[bool]string{true: "yes"}[m.Awake]},
		{"Congestion control of the pods' TCP", m.Congestion},
		{"Load average at the start", m.Load},
		{"Versions", versions(r)},
		{"Runs", fmt.Sprintf("%d of %s each", r.Runs, r.Duration)},
	}
	return slices.DeleteFunc(list, func(p pair) bool { return p.Text == "" })
}

func versions(r *scenario.Results) string {
	parts := []string{r.Machine.Go}
	for _, k := range slices.Sorted(maps.Keys(r.Versions)) {
		parts = append(parts, k+": "+r.Versions[k])
	}
	return strings.Join(parts, "; ")
}

func pairs(m map[string]string) (out []pair) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, pair{k, m[k]})
	}
	return out
}
