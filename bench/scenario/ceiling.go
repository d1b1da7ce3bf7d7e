package scenario

import (
	"context"

	"github.com/sluice-net/sluice/bench/traffic"
)

// ceiling is no system: packets are counted and dropped where they leave pod A,
// at the host's end of its link. No system can be measured to be faster than
// that, and where one comes near, its number says more of the generator.
var ceiling = System{
	Name:  Ceiling,
	About: "no system: packets are counted and dropped at the host's end of pod A's link, so that this is what the generator reaches",
	Open:  true, Blind: true,
	Start: func(_ context.Context, s *Stage) (Running, error) {
		index, _, err := linkIndex(s.Net.Host(), s.A.Link())
		if err != nil {
			return nil, err
		}
		r := &ceilingRunning{}
		err = s.Net.Host().Do(func() (err error) {
			r.Sink, err = traffic.NewSink(index)
			return err
		})
		return r, err
	},
}

type ceilingRunning struct{ *traffic.Sink }

func (r *ceilingRunning) Modes() map[string]string { return nil }
func (r *ceilingRunning) Stop() error              { return r.Close() }
