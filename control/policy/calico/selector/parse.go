package selector

import (
	"errors"
	"slices"
)

// Parse compiles a selector. One without content selects everything.
func Parse(text string) (*Selector, error) {
	tokens, err := tokenize(text)
	if err != nil {
		return nil, err
	}
	if tokens[0].kind == tokEnd {
		return compile(all{}), nil
	}
	p := parser{rest: tokens}
	n, err := p.or()
	if err != nil {
		return nil, err
	}
	if p.peek() != tokEnd {
		return nil, errors.New("unexpected content at end of selector")
	}
	return compile(n), nil
}

// maxDepth is how deep parentheses may be nested.
const maxDepth = 10_000

type parser struct {
	rest  []token // ends with tokEnd
	depth int
}

func (p *parser) peek() kind { return p.rest[0].kind }

// take returns the next token; the last one is never used up.
func (p *parser) take() token {
	t := p.rest[0]
	if t.kind != tokEnd {
		p.rest = p.rest[1:]
	}
	return t
}

func (p *parser) or() (node, error) {
	nodes, err := p.list(tokOr, p.and)
	if err != nil || len(nodes) == 1 {
		return first(nodes), err
	}
	return or(nodes), nil
}

func (p *parser) and() (node, error) {
	nodes, err := p.list(tokAnd, p.operation)
	if err != nil || len(nodes) == 1 {
		return first(nodes), err
	}
	return and(nodes), nil
}

func first(nodes []node) node {
	if len(nodes) == 0 {
		return nil
	}
	return nodes[0]
}

// list reads operands between separators.
func (p *parser) list(separator kind, operand func() (node, error)) ([]node, error) {
	var out []node
	for {
		n, err := operand()
		if err != nil {
			return nil, err
		}
		out = append(out, n)
		if p.peek() != separator {
			return out, nil
		}
		p.take()
	}
}

// operation reads one condition; an even number of negations is none.
func (p *parser) operation() (node, error) {
	negated := false
	for p.peek() == tokNot {
		p.take()
		negated = !negated
	}
	n, err := p.condition()
	if err == nil && negated {
		n = not{n}
	}
	return n, err
}

func (p *parser) condition() (node, error) {
	t := p.take()
	switch t.kind {
	case tokHas:
		return has{t.text}, nil
	case tokAll:
		return all{}, nil
	case tokGlobal:
		return global{}, nil
	case tokLabel:
		return p.comparison(t.text)
	case tokOpen:
		if p.depth++; p.depth > maxDepth {
			return nil, errors.New("nested too deep")
		}
		n, err := p.or()
		p.depth--
		if err == nil && p.take().kind != tokClose {
			err = errors.New("expected )")
		}
		return n, err
	case tokEnd:
		return nil, errors.New("unexpected end of selector")
	}
	return nil, errors.New("unexpected token")
}

// comparison reads the operator and value behind a label.
func (p *parser) comparison(label string) (node, error) {
	switch op := p.take().kind; op {
	case tokIn, tokNotIn:
		values, err := p.set()
		return member{label, values, op == tokNotIn}, err
	case tokEqual, tokNotEqual, tokContains, tokStartsWith, tokEndsWith:
		value := p.take()
		if value.kind != tokText {
			return nil, errors.New("expected string")
		}
		return compare{label, op, value.text}, nil
	}
	return nil, errors.New("expected an operator behind label " + label)
}

// set reads the strings between braces; a comma may follow the last.
func (p *parser) set() ([]string, error) {
	if p.take().kind != tokOpenBrace {
		return nil, errors.New("expected set literal")
	}
	var out []string
	for p.peek() == tokText {
		out = append(out, p.take().text)
		if p.peek() != tokComma {
			break
		}
		p.take()
	}
	if p.take().kind != tokCloseBrace {
		return nil, errors.New("expected }")
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
