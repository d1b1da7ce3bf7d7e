package scenario

import "time"

// Progress is how far a run is.
type Progress struct {
	Done, Total int
	// Remaining is an estimate; 0: there is nothing yet to go by.
	Remaining time.Duration
	What      string
}

// clock foretells how long the steps of a plan will take, from those that have
// been made.
type clock struct {
	steps []step
	begun time.Time
	sum   map[Pair]time.Duration // by workload and system
	times map[Pair]int
	spent time.Duration
	made  int
}

func newClock(steps []step) *clock {
	return &clock{steps: steps, begun: time.Now(), sum: map[Pair]time.Duration{}, times: map[Pair]int{}}
}

func (s step) key() Pair { return Pair{s.workload.Name, s.system.Name} }

// took notes the time of a step.
func (c *clock) took(i int, d time.Duration) {
	k := c.steps[i].key()
	c.sum[k] += d
	c.times[k]++
	c.spent += d
	c.made++
}

// expect is how long a step will take: what it took before, else the mean of
// all.
func (c *clock) expect(s step) time.Duration {
	if k := s.key(); c.times[k] > 0 {
		return c.sum[k] / time.Duration(c.times[k])
	}
	return c.spent / time.Duration(max(c.made, 1))
}

// remaining is how long the steps from i on will take, given that they must
// end within a limit, unless that is 0.
func (c *clock) remaining(i int, within time.Duration) (d time.Duration) {
	for _, s := range c.steps[i:] {
		d += c.expect(s)
	}
	if left := within - time.Since(c.begun); within > 0 && d > left {
		d = max(left, 0)
	}
	return d
}

// fits reports whether step i may begin: before the first of a round, whether
// all of that will end in time, and else whether this step will.
func (c *clock) fits(i int, within time.Duration) bool {
	if i == 0 {
		return true
	}
	left := within - time.Since(c.begun)
	need := c.expect(c.steps[i])
	if run := c.steps[i].run; run != c.steps[i-1].run {
		need = 0
		for _, s := range c.steps[i:] {
			if s.run == run {
				need += c.expect(s)
			}
		}
	}
	return need <= left
}
