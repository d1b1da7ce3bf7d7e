// What is at the right: the deciding rules of what was clicked, else who is
// denied most.
import { bytes, nodeKey, number, ruleText, verdictOf } from "./model.js";

function el(tag, cls, text) {
  const e = document.createElement(tag);
  if (cls) e.className = cls;
  if (text !== undefined) e.textContent = text;
  return e;
}

const nodeText = (n) => (n.namespace ? `${n.namespace}/${n.name}` : n.name);
const said = { allow: "Allowed by", deny: "Denied by", audit: "Would be denied by" };

export class Details {
  constructor(root, model, on) {
    this.root = root; this.model = model; this.on = on; this.what = {};
    root.addEventListener("click", (e) => {
      const key = e.target.closest("[data-edge]")?.dataset.edge;
      if (key) on.edge(key);
      if (e.target.closest(".close")) on.edge(null);
    });
  }

  show(what) { this.what = what; this.last = null; this.refresh(); }

  refresh() {
    const { data, edge, node } = this.what;
    if (data) { if (this.last !== data) this.flow(data); this.last = data; return; }
    if (edge && this.model.edges.has(edge)) return this.edge(this.model.edges.get(edge));
    if (node) return this.node(node);
    this.overview();
  }

  put(...parts) { const top = this.root.scrollTop; this.root.replaceChildren(...parts.filter(Boolean)); this.root.scrollTop = top; }

  title(from, to) {
    const box = el("div"), close = el("button", "close", "✕");
    close.type = "button"; close.setAttribute("aria-label", "Close");
    box.append(close, el("h2", "", from));
    if (to) box.append(el("div", "arrow", "↓"), el("h2", "", to));
    return box;
  }

  // rules shows who gave a verdict.
  rules(verdict, refs, text, reason, n) {
    const box = document.createDocumentFragment();
    for (const ref of refs) {
      const r = ruleText(ref), card = el("div", `rule ${verdict}`);
      const line = el("div");
      line.append(el("b", "", r.name));
      if (n !== undefined && ref === refs[0]) line.append(el("span", "dim", `  ${number(n)}×`));
      card.append(line, el("small", "", `${r.kind}${ref.tier ? ` · tier ${ref.tier}` : ""}`), el("small", "", r.where));
      box.append(card);
    }
    if (!refs.length) {
      const card = el("div", `rule ${verdict}`);
      const line = el("div");
      line.append(el("b", "", text || (reason === "ok" ? "No policy selects either end" : reason)));
      if (n !== undefined) line.append(el("span", "dim", `  ${number(n)}×`));
      card.append(line);
      box.append(card);
    }
    return box;
  }

  pairs(list) {
    const dl = el("dl", "pair");
    for (const [k, v] of list) if (v !== "" && v !== undefined && v !== null) dl.append(el("dt", "", k), el("dd", "", String(v)));
    return dl;
  }

  flow(f) {
    const v = verdictOf(f);
    const end = (e) => (e.pod ? `${e.namespace}/${e.pod}` : e.addr);
    const addr = (e) => (e.port ? (e.addr.includes(":") ? `[${e.addr}]:${e.port}` : `${e.addr}:${e.port}`) : e.addr);
    this.put(this.title(end(f.src), end(f.dst)), el("h3", "", said[v]), this.rules(v, f.decidedBy, f.text, f.reason), el("h3", "", "Flow"),
      this.pairs([["Event", f.event + (f.reply ? ", of a reply" : "")], ["Time", new Date(f.time).toLocaleString()], ["Source", addr(f.src)], ["Destination", addr(f.dst)],
        ["Protocol", f.proto], ["TCP flags", f.tcpFlags], ["Judged", f.hook === "from-pod" ? "leaving the pod" : "entering the pod"],
        ["Reason", f.reason === "ok" ? "" : f.reason], ["Denied likewise", f.suppressed || ""],
        ["Packets", f.event === "ended" ? `${f.packets[0]} → · ← ${f.packets[1]}` : ""], ["Bytes", f.event === "ended" ? `${bytes(f.bytes[0])} → · ← ${bytes(f.bytes[1])}` : ""],
        ["Duration", f.durationMs ? `${(f.durationMs / 1000).toFixed(2)} s` : ""], ["Rules' generation", f.generation]]));
  }

  edge(e) {
    const causes = [...e.causes].sort((a, b) => b[1] - a[1]).slice(0, 12);
    const rules = document.createDocumentFragment();
    for (const [cause, n] of causes) {
      if (cause === "others") continue;
      const [refs, text, reason] = JSON.parse(cause);
      rules.append(this.rules(e.verdict, refs ?? [], text, reason, n || undefined));
    }
    const ports = [...e.ports].sort((a, b) => b[1] - a[1]).slice(0, 12);
    this.put(this.title(nodeText(e.from), nodeText(e.to)), el("h3", "", said[e.verdict]), rules, el("h3", "", "Ports"),
      this.bars(ports.map(([name, n]) => ({ name, n, verdict: e.verdict }))), el("h3", "", "Traffic"),
      this.pairs([["Verdicts", number(e.flows)], [e.verdict === "deny" ? "Packets denied" : "Packets of ended flows", number(e.packets)],
        ["Bytes of ended flows", e.bytes ? bytes(e.bytes) : ""], ["Last seen", new Date(e.seen).toLocaleTimeString()]]));
  }

  node(key) {
    const edges = [...this.model.edges.values()];
    const list = (some, name) => some.sort((a, b) => b.flows - a.flows).slice(0, 20).map((e) => ({ name: nodeText(name(e)), n: e.flows, verdict: e.verdict, edge: e.key }));
    const out = list(edges.filter((e) => nodeKey(e.from) === key), (e) => e.to);
    const inn = list(edges.filter((e) => nodeKey(e.to) === key), (e) => e.from);
    const [kind, ns, name] = key.split("|");
    this.put(this.title(ns ? `${ns}/${name}` : name), el("p", "dim", { pod: "Workload", host: "The node that the agent runs on", node: "Another node", world: "Addresses that no pod or node has" }[kind]),
      out.length && el("h3", "", "Opens flows to"), out.length && this.bars(out), inn.length && el("h3", "", "Is called by"), inn.length && this.bars(inn));
  }

  overview() {
    const edges = [...this.model.edges.values()];
    const top = (verdict) => edges.filter((e) => e.verdict === verdict && e.flows).sort((a, b) => b.flows - a.flows).slice(0, 8)
      .map((e) => ({ name: `${e.from.name} → ${e.to.name}`, title: `${nodeText(e.from)} → ${nodeText(e.to)}`, n: e.flows, verdict, edge: e.key }));
    const policies = new Map();
    for (const e of edges) {
      if (e.verdict === "allow") continue;
      for (const [cause, n] of e.causes) {
        if (cause === "others") continue;
        for (const r of JSON.parse(cause)[0] ?? []) {
          const name = r.namespace ? `${r.namespace}/${r.name}` : r.name;
          policies.set(name, (policies.get(name) ?? 0) + n);
        }
      }
    }
    const deny = top("deny"), audit = top("audit"), allow = top("allow");
    const by = [...policies].sort((a, b) => b[1] - a[1]).slice(0, 6).map(([name, n]) => ({ name, n, verdict: "deny" }));
    const hint = el("p", "dim", "Click an edge, a node or a flow for the rule that decided.");
    this.put(hint, deny.length && el("h3", "", "Denied most"), deny.length && this.bars(deny), by.length && el("h3", "", "Policies that deny"), by.length && this.bars(by),
      audit.length && el("h3", "", "Audited most"), audit.length && this.bars(audit), allow.length && el("h3", "", "Allowed most"), allow.length && this.bars(allow));
  }

  bars(list) {
    const box = document.createDocumentFragment(), max = Math.max(1, ...list.map((x) => x.n));
    for (const x of list) {
      const bar = el("div", "bar"), track = el("div", "track"), fill = el("div", `fill ${x.verdict}`);
      if (x.edge) bar.dataset.edge = x.edge;
      fill.style.width = `${Math.max(2, (100 * x.n) / max)}%`;
      track.append(fill);
      const name = el("span", "name", x.name);
      name.title = x.title ?? x.name;
      bar.append(name, el("span", "n", number(x.n)), track);
      box.append(bar);
    }
    return box;
  }
}
