'use strict';
// Draws the report. Everything from the report becomes text nodes and attribute values, never markup.
(() => {
  const read = id => JSON.parse(document.getElementById(id).textContent);
  const report = read('report');
  const map = read('map');
  const SVG = 'http://www.w3.org/2000/svg';
  const COLOURS = 6;
  const LOST = -1;
  const SPACE = '\u00a0';

  // ---------------------------------------------------------------- elements

  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
      else if (name === 'style') Object.assign(node.style, value);
      else node.setAttribute(name, value === true ? '' : value);
    }
    for (const child of children.flat(Infinity)) {
      if (child !== null && child !== undefined && child !== false) node.append(child);
    }
    return node;
  }
  const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

  // ---------------------------------------------------------------- words

  const letter = i => String.fromCharCode(65 + i % 26) + (i < 26 ? '' : Math.floor(i / 26));
  const colour = i => i < 0 ? 'var(--lost)' : `var(--s${i % COLOURS})`;
  const ink = i => i < 0 ? '#fff' : `var(--t${i % COLOURS})`;
  const ms = x => x === null || x === undefined ? '—'
    : x >= 1000 ? `${(x / 1000).toFixed(2)}${SPACE}s` : x >= 100 ? `${x.toFixed(0)}${SPACE}ms` : `${x.toFixed(1)}${SPACE}ms`;
  const at = x => `${(x / 1000).toFixed(2)}${SPACE}s`;
  const km = x => `${Math.round(x).toLocaleString('en')}${SPACE}km`;
  const count = (n, one, many) => `${n.toLocaleString('en')} ${n === 1 ? one : many}`;
  const path = asns => asns.map(a => `AS${a}`).join(' ');
  const title = phase => phase.site ? `${phase.action} ${phase.site}` : phase.label;

  const siteIndex = new Map(report.sites.map((site, i) => [site.name, i]));
  const index = name => name === null || name === undefined ? -1 : siteIndex.has(name) ? siteIndex.get(name) : -1;
  const networks = new Map(report.networks.map(n => [n.asn, n]));
  const networkName = asn => networks.has(asn) ? networks.get(asn).name : '';

  function chip(name, round) {
    const i = index(name);
    const mark = h('i', { class: round && 'round', style: { background: colour(i), color: ink(i) } }, i < 0 ? '×' : letter(i));
    return h('span', { class: 'chip' }, mark, name === null || name === undefined ? 'nobody' : name);
  }

  // ---------------------------------------------------------------- geography

  // Miller's projection, as in geo.rs.
  const radians = Math.PI / 180;
  const miller = lat => 1.25 * Math.log(Math.tan(Math.PI / 4 + .4 * lat * radians));
  const scale = map.width / (2 * Math.PI);
  const project = place => [(place.lon + 180) * radians * scale, (miller(map.north) - miller(place.lat)) * scale];

  // Points of the great circle between two places.
  function greatCircle(a, b) {
    const vector = p => {
      const c = Math.cos(p.lat * radians);
      return [c * Math.cos(p.lon * radians), c * Math.sin(p.lon * radians), Math.sin(p.lat * radians)];
    };
    const u = vector(a), v = vector(b);
    const angle = Math.acos(Math.min(1, Math.max(-1, u[0] * v[0] + u[1] * v[1] + u[2] * v[2])));
    if (angle < 1e-6) return [a, b];
    const steps = Math.max(2, Math.ceil(angle / radians / 3));
    return Array.from({ length: steps + 1 }, (_, i) => {
      const f = Math.sin((1 - i / steps) * angle) / Math.sin(angle), g = Math.sin(i / steps * angle) / Math.sin(angle);
      const [x, y, z] = [0, 1, 2].map(n => f * u[n] + g * v[n]);
      return { lat: Math.atan2(z, Math.hypot(x, y)) / radians, lon: Math.atan2(y, x) / radians };
    });
  }

  // An SVG path over places, cut where it leaves the map on one side and comes back on the other.
  // `ends` are the drawn positions of the first and last place, which may have been moved apart.
  function curve(places, ends) {
    let d = '', last = null;
    places.forEach((place, i) => {
      if (last && Math.abs(place.lon - last.lon) > 180) {
        const side = last.lon > 0 ? 180 : -180;
        const f = (side - last.lon) / (place.lon + 2 * side - last.lon);
        const lat = last.lat + f * (place.lat - last.lat);
        const out = project({ lat, lon: side }), back = project({ lat, lon: -side });
        d += `L${out[0].toFixed(1)} ${out[1].toFixed(1)}M${back[0].toFixed(1)} ${back[1].toFixed(1)}`;
      }
      const end = i === 0 ? 0 : i === places.length - 1 ? 1 : -1;
      const [x, y] = ends && end >= 0 ? ends[end] : project(place);
      d += `${i === 0 ? 'M' : 'L'}${x.toFixed(1)} ${y.toFixed(1)}`;
      last = place;
    });
    return d;
  }

  // Moves markers that would cover each other apart; sites stay where they are.
  function layout(k) {
    const spots = report.sites.map(p => ({ p, fixed: true, r: 12 * k })).concat(
      report.vantage_points.map(p => ({ p, fixed: false, r: 10 * k })));
    spots.forEach((spot, i) => {
      const [x, y] = project(spot.p);
      // A direction of its own for markers at the same place.
      spot.x = x + (spot.fixed ? 0 : Math.cos(i * 2.4)) * .01;
      spot.y = y + (spot.fixed ? 0 : .01 + Math.sin(i * 2.4) * .005);
    });
    for (let round = 0; round < 60; round++) {
      let still = true;
      for (let i = 0; i < spots.length; i++) {
        for (let j = i + 1; j < spots.length; j++) {
          const a = spots[i], b = spots[j];
          if (a.fixed && b.fixed) continue;
          const dx = b.x - a.x, dy = b.y - a.y, distance = Math.hypot(dx, dy) || .001;
          const push = a.r + b.r - distance;
          if (push <= 0) continue;
          still = false;
          const share = a.fixed || b.fixed ? push : push / 2;
          if (!a.fixed) { a.x -= dx / distance * share; a.y -= dy / distance * share; }
          if (!b.fixed) { b.x += dx / distance * share; b.y += dy / distance * share; }
        }
      }
      if (still) break;
    }
    const place = spot => [Math.min(map.width - spot.r, Math.max(spot.r, spot.x)), Math.min(map.height - spot.r, Math.max(spot.r, spot.y))];
    return new Map(spots.map(spot => [spot.p, place(spot)]));
  }

  // ---------------------------------------------------------------- one map

  const nobody = { site: null, rtt_ms: null, as_path: [] };
  const landing = (phase, address, vantage) => ((phase.catchments[address] || {})[vantage.name]) || nobody;

  function describe(vantage, land) {
    const there = land.site === null
      ? [' is not answered by anybody.']
      : [' lands on ', h('b', null, land.site), ` in ${ms(land.rtt_ms)}`,
        land.as_path.length ? ` over ${path([vantage.asn].concat(land.as_path))}` : '', '. ',
        vantage.nearest_site === land.site ? `That is the nearest site, ${km(vantage.nearest_km)} away.`
          : `The nearest site is ${vantage.nearest_site}, ${km(vantage.nearest_km)} away.`];
    return [h('b', null, vantage.name), ` (AS${vantage.asn} ${networkName(vantage.asn)})`, there];
  }

  // The places a landing's packets pass: client, networks, site.
  function way(vantage, land) {
    const site = report.sites[index(land.site)];
    if (!site) return null;
    const hops = land.as_path.map(asn => networks.get(asn)).filter(n => n);
    return [vantage, ...hops, site];
  }

  function drawMap(width, address, phase, other) {
    const k = map.width / width;
    const places = layout(k);
    const small = width < 480;
    const note = h('p', { class: 'note', 'aria-live': 'polite' }, 'Point at a client, or reach it with Tab, to see its path.');
    const svg = s('svg', { class: 'map', viewBox: `0 0 ${map.width} ${map.height}`, role: 'group', 'aria-label': `Map: who lands where, ${title(phase)}` });
    svg.append(s('path', { class: 'land', d: map.land, 'stroke-width': k * .6 }));
    const arcs = s('g'), detail = s('g'), spots = s('g');
    const drawn = new Map();
    for (const vantage of report.vantage_points) {
      const land = landing(phase, address, vantage);
      const i = index(land.site);
      const moved = other && landing(other, address, vantage).site !== land.site;
      if (i >= 0) {
        const site = report.sites[i];
        const d = curve(greatCircle(vantage, site), [places.get(vantage), places.get(site)]);
        const width = k * (moved ? 3 : 1.8);
        const arc = s('g', { class: moved ? 'arc strong' : 'arc' },
          s('path', { class: 'casing', 'stroke-width': width + k * 1.4, d }), s('path', { stroke: colour(i), 'stroke-width': width, d }));
        drawn.set(vantage, arc);
        arcs.append(arc);
      }
      spots.append(drawVantage(vantage, land, i, moved));
    }
    function show(vantage, land) {
      drawn.forEach((arc, v) => arc.classList.toggle('faint', vantage !== null && v !== vantage));
      detail.replaceChildren();
      note.replaceChildren(...(vantage ? describe(vantage, land).flat() : ['Point at a client, or reach it with Tab, to see its path.']));
      const stops = vantage && way(vantage, land);
      if (!stops) return;
      const points = stops.flatMap((stop, n) => n + 1 < stops.length ? greatCircle(stop, stops[n + 1]).slice(n ? 1 : 0) : []);
      detail.append(s('path', { class: 'way', 'stroke-width': k * 1.6, 'stroke-dasharray': `${k * 5} ${k * 3}`, d: curve(points, [places.get(vantage), places.get(stops[stops.length - 1])]) }));
      for (const stop of stops.slice(1, -1)) {
        const [x, y] = project(stop);
        detail.append(s('circle', { cx: x, cy: y, r: k * 3.5, fill: 'var(--ink)' }));
      }
    }
    function drawVantage(vantage, land, i, moved) {
      const [x, y] = places.get(vantage);
      const r = k * (small ? 5 : 8.5);
      const spot = s('g', {
        class: 'spot', tabindex: 0, role: 'img',
        'aria-label': `${vantage.name}: ${land.site === null ? 'nobody answers' : `${land.site}, ${ms(land.rtt_ms)}`}${moved ? ', moved' : ''}`,
        onmouseenter: () => show(vantage, land), onmouseleave: () => show(null), onfocus: () => show(vantage, land), onblur: () => show(null),
      });
      if (moved) spot.append(s('circle', { class: 'halo', cx: x, cy: y, r: r + k * 2.6, 'stroke-width': k * 1.4 }));
      spot.append(s('circle', { cx: x, cy: y, r, fill: colour(i), stroke: 'var(--card)', 'stroke-width': k * 1.2 }));
      if (!small) spot.append(s('text', { x, y, fill: ink(i), 'font-size': k * 10 }, i < 0 ? '×' : letter(i)));
      return spot;
    }
    const sites = s('g'), labels = s('g');
    report.sites.forEach((site, i) => {
      const [x, y] = places.get(site);
      const a = k * (small ? 7 : 10);
      const down = phase.site === site.name && !Object.values(phase.catchments[address] || {}).some(l => l.site === site.name);
      sites.append(s('g', { class: 'site' },
        s('title', null, `${site.name}, ${site.location}`),
        s('rect', { x: x - a, y: y - a, width: 2 * a, height: 2 * a, rx: k * 3, fill: colour(i), 'fill-opacity': down ? .45 : null, stroke: 'var(--ink)', 'stroke-width': k * 1.6 }),
        s('text', { x, y, fill: ink(i), 'font-size': k * (small ? 9 : 12) }, letter(i)),
        down ? [s('circle', { cx: x + a, cy: y - a, r: a * .62, fill: 'var(--lost)', stroke: 'var(--card)', 'stroke-width': k }),
          s('text', { x: x + a, y: y - a, fill: '#fff', 'font-size': a * 1.1 }, '×')] : null));
      labels.append(label(site, x, y, a, k * (small ? 10 : 13), k, [...places.values()]));
    });
    svg.append(arcs, detail, sites, spots, labels);
    return [svg, note];
  }

  // A site's name on the side of its marker where it covers least.
  function label(site, x, y, a, size, k, taken) {
    const width = site.name.length * size * .6, gap = k * 3;
    const sides = [[x, y - a - gap - size / 2], [x + a + gap + width / 2, y], [x - a - gap - width / 2, y], [x, y + a + gap + size / 2]];
    const cost = ([cx, cy]) => taken.reduce((sum, [px, py]) => {
      const dx = width / 2 + k * 8 - Math.abs(px - cx), dy = size / 2 + k * 8 - Math.abs(py - cy);
      return dx > 0 && dy > 0 && (px !== x || py !== y) ? sum + dx * dy : sum;
    }, cx - width / 2 < 0 || cx + width / 2 > map.width || cy - size / 2 < 0 || cy + size / 2 > map.height ? 1e9 : 0);
    const best = sides.reduce((least, side) => cost(side) < cost(least) ? side : least);
    // A crowd of names hides more than it tells: the legend has them all.
    if (report.sites.length > 12 && cost(best) > 0) return '';
    return s('text', { class: 'label', x: best[0], y: best[1], 'font-size': size, 'stroke-width': k * 3 }, site.name);
  }

  // ---------------------------------------------------------------- where clients land

  function landings() {
    const phases = report.phases.filter(p => Object.keys(p.catchments).length);
    if (!phases.length) return null;
    const addresses = report.service.addresses;
    const firstFault = report.faults.length ? phases.findIndex(p => p.label === report.faults[0].label) : -1;
    let chosen = firstFault > 0 ? firstFault : phases.length - 1;
    let address = addresses[0];
    const maps = h('div', { class: 'maps' });
    const table = h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Table of landings' });
    const steps = h('div', { class: 'steps', role: 'group', 'aria-label': 'Step of the scenario' });
    const families = h('div', { class: 'steps', role: 'group', 'aria-label': 'Service address' });

    function buttons() {
      steps.replaceChildren(...phases.map((phase, i) => h('button', {
        type: 'button', 'aria-pressed': String(i === chosen), title: `${phase.label}, at ${at(phase.at_ms)}`, onclick: () => { chosen = i; update(steps, i); },
      }, h('span', { class: 'n' }, String(i + 1)), title(phase))));
      families.replaceChildren(...(addresses.length < 2 ? [] : addresses.map((a, i) => h('button', {
        type: 'button', 'aria-pressed': String(a === address), onclick: () => { address = a; update(families, i); },
      }, a))));
    }
    steps.addEventListener('keydown', event => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      chosen = Math.min(phases.length - 1, Math.max(0, chosen + step));
      update(steps, chosen);
    });
    function update(group, focus) {
      buttons();
      if (group) group.children[focus].focus();
      draw();
    }
    function draw() {
      const after = phases[chosen], before = chosen > 0 ? phases[chosen - 1] : null;
      maps.classList.toggle('two', before !== null);
      const two = before !== null && maps.clientWidth >= 900;
      const width = Math.max(280, two ? (maps.clientWidth - 16) / 2 : maps.clientWidth);
      const moved = before ? report.vantage_points.filter(v => landing(before, address, v).site !== landing(after, address, v).site).length : 0;
      const side = (word, phase, other, extra) => h('figure', null,
        h('figcaption', null, h('span', null, h('b', null, word), ` ${title(phase)}`), h('span', { class: 'soft' }, extra)),
        drawMap(width, address, phase, other));
      maps.replaceChildren(...[
        before && side('Before:', before, after, ''),
        side(before ? 'After:' : 'At the end of:', after, before, before ? (moved ? `${count(moved, 'client', 'clients')} moved (ringed)` : 'nobody moved') : ''),
      ].filter(x => x));
      table.replaceChildren(landingTable(before, after, address));
    }
    new ResizeObserver(() => { if (maps.clientWidth !== maps.drawnWidth) { maps.drawnWidth = maps.clientWidth; draw(); } }).observe(maps);
    buttons();
    return h('section', null,
      h('h2', null, 'Where clients land'),
      h('p', { class: 'soft' }, 'Squares are sites, circles are clients in the colour and with the letter of the site that answers them.'),
      h('div', { class: 'bar' }, steps, families),
      maps, legend(), table);
  }

  function legend() {
    return h('ul', { class: 'legend', 'aria-label': 'Sites' },
      report.sites.map(site => h('li', null, chip(site.name), h('span', { class: 'soft small' }, ` ${site.location}`))),
      h('li', null, chip(null, true), h('span', { class: 'soft small' }, ' answers')));
  }

  function landingTable(before, after, address) {
    const cell = land => [chip(land.site, true), land.site === null ? '' : h('span', { class: 'soft' }, ` ${ms(land.rtt_ms)}`)];
    const rows = report.vantage_points.map(vantage => {
      const land = landing(after, address, vantage);
      const was = before && landing(before, address, vantage);
      const moved = was && was.site !== land.site;
      return h('tr', { class: moved && 'moved' },
        h('th', { scope: 'row' }, vantage.name),
        h('td', { class: 'wide' }, chip(vantage.nearest_site), h('span', { class: 'soft' }, ` ${km(vantage.nearest_km)}`)),
        was ? h('td', null, cell(was)) : null,
        h('td', null, cell(land), moved ? h('span', { class: land.site === null ? 'tag bad' : 'tag' }, land.site === null ? 'cut off' : 'moved') : ''),
        h('td', { class: 'path wide' }, path([vantage.asn].concat(land.as_path))));
    });
    return h('table', null,
      h('caption', null, `The same as a table, for ${address}`),
      h('thead', null, h('tr', null,
        h('th', { scope: 'col' }, 'Client'), h('th', { scope: 'col', class: 'wide' }, 'Nearest site'),
        before ? h('th', { scope: 'col' }, 'Before') : null, h('th', { scope: 'col' }, before ? 'After' : 'Lands on'),
        h('th', { scope: 'col', class: 'wide' }, 'AS path'))),
      h('tbody', null, rows));
  }

  // ---------------------------------------------------------------- timeline

  function timeline() {
    const t = report.timeline;
    const lanes = report.vantage_points.filter(v => t.lanes[v.name]);
    if (!lanes.length) return null;
    const buckets = Math.max(...lanes.map(v => t.lanes[v.name].reduce((sum, run) => sum + run[1], 0)));
    const holder = h('div');
    function draw() {
      const width = Math.max(300, holder.clientWidth);
      const left = width < 560 ? 84 : 116, lane = 17, gap = 4, head = 30;
      const room = width - left - 6;
      const bottom = head + lanes.length * (lane + gap);
      const end = t.start_ms + buckets * t.bucket_ms;
      const x = moment => left + (moment - t.start_ms) / (end - t.start_ms) * room;
      const svg = s('svg', { class: 'timeline', width, height: bottom + 22, viewBox: `0 0 ${width} ${bottom + 22}`, role: 'img', 'aria-label': 'Timeline: who answered each client when. The table below says the same.' });
      svg.append(s('defs', null, s('pattern', { id: 'hatch', width: 5, height: 5, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' },
        s('rect', { width: 5, height: 5, fill: 'var(--lost)' }), s('rect', { width: 1.6, height: 5, fill: 'var(--card)', opacity: .55 }))));
      const seconds = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600].find(n => room / ((end - t.start_ms) / 1000 / n) >= 56) || 1800;
      for (let n = Math.ceil(t.start_ms / 1000 / seconds) * seconds; n * 1000 <= end; n += seconds) {
        svg.append(s('line', { class: 'grid', x1: x(n * 1000), x2: x(n * 1000), y1: head - 6, y2: bottom }),
          s('text', { x: x(n * 1000), y: bottom + 15, 'text-anchor': 'middle' }, `${n} s`));
      }
      lanes.forEach((vantage, row) => {
        const y = head + row * (lane + gap);
        svg.append(s('text', { class: 'name', x: left - 8, y: y + lane / 2 + 4, 'text-anchor': 'end' }, short(vantage.name, left)));
        let from = 0;
        for (const [value, length] of t.lanes[vantage.name]) {
          const x1 = x(t.start_ms + from * t.bucket_ms), x2 = x(t.start_ms + (from + length) * t.bucket_ms);
          from += length;
          if (value < LOST) continue;
          // A loss is never thinner than can be seen.
          const wide = value === LOST ? Math.max(3, x2 - x1) : x2 - x1;
          const rect = s('rect', { x: x1, y, width: wide, height: lane, class: value === LOST && 'loss', fill: value !== LOST ? colour(value) : wide < 6 ? 'var(--lost)' : 'url(#hatch)' },
            s('title', null, `${vantage.name}: ${value === LOST ? 'queries lost' : report.sites[value].name}, ${at(t.start_ms + (from - length) * t.bucket_ms)} to ${at(t.start_ms + from * t.bucket_ms)}`));
          svg.append(rect);
          if (value >= 0 && wide > 22) svg.append(s('text', { x: x1 + 6, y: y + lane / 2 + 4, style: { fill: ink(value), fontWeight: 700 }, 'pointer-events': 'none' }, letter(value)));
        }
      });
      // Losses on top of what follows them.
      [...svg.querySelectorAll('.loss')].forEach(rect => svg.append(rect));
      let last = -99;
      report.phases.forEach((phase, i) => {
        const px = x(phase.at_ms);
        if (px < left - 1) return;
        svg.append(s('line', { class: 'mark', x1: px, x2: px, y1: 18, y2: bottom }));
        const bx = Math.max(px, last + 19);
        last = bx;
        svg.append(s('g', null, s('title', null, `${title(phase)} at ${at(phase.at_ms)}`),
          s('circle', { class: 'badge', cx: bx, cy: 10, r: 9 }), s('text', { class: 'badgetext', x: bx, y: 14 }, String(i + 1))));
      });
      holder.replaceChildren(svg);
    }
    const short = (name, left) => { const most = Math.floor((left - 10) / 6.6); return name.length > most ? `${name.slice(0, most - 1)}…` : name; };
    new ResizeObserver(() => { if (holder.clientWidth !== holder.drawnWidth) { holder.drawnWidth = holder.clientWidth; draw(); } }).observe(holder);
    return h('section', null,
      h('h2', null, 'Who answered when'),
      h('p', { class: 'soft' }, `One lane for each client, in slices of ${t.bucket_ms} ms; a slice with any unanswered query is hatched. Numbers are the steps of the scenario.`),
      holder, legend(),
      h('ol', { class: 'legend' }, report.phases.map((phase, i) => h('li', { class: 'small' }, h('b', null, `${i + 1} `), `${title(phase)} `, h('span', { class: 'soft' }, at(phase.at_ms))))),
      h('details', null, h('summary', null, 'The timeline as a table'), timelineTable(t, lanes)));
  }

  function timelineTable(t, lanes) {
    const rows = lanes.flatMap(vantage => {
      let from = 0;
      return t.lanes[vantage.name].map(([value, length]) => {
        const start = t.start_ms + from * t.bucket_ms;
        from += length;
        const who = value === LOST ? h('span', { class: 'bad' }, 'queries lost') : value < 0 ? 'not asked' : chip(report.sites[value].name, true);
        return h('tr', null, h('th', { scope: 'row' }, vantage.name), h('td', { class: 'num' }, at(start)), h('td', { class: 'num' }, at(t.start_ms + from * t.bucket_ms)), h('td', null, who));
      });
    });
    return h('div', { class: 'scroll' }, h('table', null,
      h('thead', null, h('tr', null, h('th', { scope: 'col' }, 'Client'), h('th', { scope: 'col', class: 'num' }, 'From'), h('th', { scope: 'col', class: 'num' }, 'Until'), h('th', { scope: 'col' }, 'Answered by'))),
      h('tbody', null, rows)));
  }

  // ---------------------------------------------------------------- faults, surprises, expectations, events

  function faults() {
    if (!report.faults.length) return null;
    return h('section', null, h('h2', null, 'What each fault did to clients'),
      h('p', { class: 'soft' }, `Outage: from the first query that was not answered to the first that was again, known to ${ms(report.probe.every_ms)}.`),
      h('div', { class: 'faults' }, report.faults.map(fault)));
  }

  function fault(f) {
    const hit = Object.entries(f.outage_ms).sort((a, b) => b[1] - a[1]);
    const others = Object.keys(f.moved_to).filter(name => !(name in f.outage_ms));
    const worst = Math.max(...hit.map(([, x]) => x), 1e-9);
    const to = name => name in f.moved_to ? chip(f.moved_to[name], true) : h('span', { class: 'soft' }, 'stayed');
    const row = (name, outage) => h('tr', null,
      h('th', { scope: 'row' }, name,
        f.unrecovered.includes(name) ? h('span', { class: 'tag bad' }, 'not recovered') : '',
        f.doubtful.includes(name) ? h('span', { class: 'tag' }, 'doubtful') : ''),
      h('td', { style: { width: '42%' } }, outage === null ? h('span', { class: 'soft' }, 'was elsewhere')
        : [ms(outage), h('span', { class: outage > 0 ? 'gauge' : 'gauge none', style: { width: `${Math.max(1, outage / worst * 100)}%` } })]),
      h('td', null, to(name)));
    const figure = (word, value) => h('span', null, h('b', null, value), word);
    return h('article', { class: 'fault' },
      h('h3', null, `${f.kind} `, chip(f.site)),
      h('p', { class: 'soft small' }, `${f.label}, at ${at(f.at_ms)}`),
      h('div', { class: 'figures' }, figure('median outage', ms(f.median_ms)), figure('worst outage', ms(f.worst_ms)), figure(f.lost === 1 ? 'query lost' : 'queries lost', f.lost.toLocaleString('en'))),
      hit.length + others.length ? h('table', null,
        h('thead', null, h('tr', null, h('th', { scope: 'col' }, 'Client'), h('th', { scope: 'col' }, 'Outage'), h('th', { scope: 'col' }, 'Went to'))),
        h('tbody', null, hit.map(([name, x]) => row(name, x)), others.map(name => row(name, null)))) : h('p', { class: 'soft' }, 'Nobody was on the site.'));
  }

  function sessions() {
    const s = report.sessions, c = report.control;
    if (!s) return null;
    const off = s.data_plane.find(p => p.state === 'off');
    const ways = f => Object.entries(f.how).map(([how, n]) => `${n} ${how}`).join(', ');
    const figures = f => f ? [
      h('td', { class: f.lost ? 'num bad' : 'num ok' }, `${f.lost} of ${f.sessions}`, f.lost ? h('span', { class: 'small' }, ` ${ways(f)}`) : ''),
      h('td', { class: 'num' }, ms(f.longest_wait_ms))] : [h('td', null, ''), h('td', null, '')];
    const table = (names, rows) => h('div', { class: 'scroll' }, h('table', null,
      h('thead', null, h('tr', null, [...names, 'Lost', 'Longest wait', ...(c ? ['Lost without', 'Longest without'] : [])].map((x, i) => h('th', { scope: 'col', class: i < names.length ? '' : 'num' }, x)))),
      h('tbody', null, rows.map(([words, f, without]) => h('tr', null, words.map(x => h('td', null, x)), figures(f), c ? figures(without) : null)))));
    return h('section', null, h('h2', null, 'Sessions'),
      off ? h('p', { class: 'bad' }, `The data plane is not available here: ${off.site}: ${off.troubles.join('; ')}`) : null,
      c ? h('p', { class: 'soft' }, 'The same scenario was played without the data plane first: the columns on the right.') : null,
      table(['Step'], [...s.steps.map(x => [[x.label], x, c && c.steps.find(y => y.label === x.label)]), [['all'], s.total, c && c.total]]),
      table(['Vantage point', 'Kind'], s.rows.map(x => [[x.vantage, x.kind], x, c && c.rows.find(y => y.vantage === x.vantage && y.kind === x.kind)])));
  }

  function surprises() {
    if (!report.surprises.length) return null;
    return h('section', null, h('h2', null, 'Surprises'),
      h('p', { class: 'soft' }, 'Clients that land on another site than the nearest, and the decision that sends them there.'),
      report.surprises.map(x => h('div', { class: 'surprise' },
        h('h3', null, `${x.vantage} lands on `, chip(x.site), ` instead of `, chip(x.nearest_site)),
        h('p', { class: 'soft small' }, `${km(x.km)} and ${ms(x.rtt_ms)} instead of ${km(x.nearest_km)} and about ${ms(x.nearest_rtt_ms)}`),
        x.decided_by === null ? h('p', { class: 'why' }, x.text) : h('dl', { class: 'choice' },
          h('dt', null, 'decided by'), h('dd', null, `AS${x.decided_by} ${networkName(x.decided_by)}`),
          x.chosen.length ? [h('dt', null, 'chose'), h('dd', null, path(x.chosen))] : null,
          x.rejected.length ? [h('dt', null, x.reason === 'not-exported' ? 'kept to itself' : 'rejected'), h('dd', null, path(x.rejected))] : null,
          h('dt', null, 'because'), h('dd', null, x.step)))));
  }

  function expectations() {
    if (!report.expectations.length) return null;
    return h('section', null, h('h2', null, 'Expectations'),
      h('div', { class: 'scroll' }, h('table', null,
        h('thead', null, h('tr', null, ['', 'Step', 'What', 'Expected', 'Actual'].map(x => h('th', { scope: 'col' }, x)))),
        h('tbody', null, report.expectations.map(e => h('tr', null,
          h('td', { class: e.ok ? 'ok' : 'bad' }, e.ok ? '✓' : '✗', h('span', { class: 'small' }, e.ok ? ' holds' : ' fails')),
          h('td', null, e.step), h('td', null, e.what), h('td', null, e.expected), h('td', null, e.actual)))))));
  }

  function events() {
    if (!report.events.length) return null;
    return h('section', null, h('h2', null, 'What happened'),
      h('div', { class: 'scroll' }, h('table', null,
        h('thead', null, h('tr', null, h('th', { scope: 'col', class: 'num' }, 'At'), h('th', { scope: 'col' }, ''), h('th', { scope: 'col' }, 'Event'))),
        h('tbody', null, report.events.map(e => h('tr', null,
          h('td', { class: 'num', style: { whiteSpace: 'nowrap' } }, `${(e.at_ms / 1000).toFixed(3)} s`),
          h('td', { class: e.kind === 'warning' ? 'bad small' : 'soft small' }, e.kind),
          h('td', null, e.kind === 'action' ? h('b', null, e.text) : e.text)))))));
  }

  // ---------------------------------------------------------------- page

  function header() {
    const v = report.verdict;
    const failed = Math.max(v.failed.length, report.expectations.filter(e => !e.ok).length);
    return [
      h('header', null,
        h('div', null,
          h('p', { class: 'kicker' }, 'ubique rehearsal'),
          h('h1', null, report.service.name),
          h('p', { class: 'facts' }, `scenario ${report.scenario} · ${report.routers} routers · ${count(report.sites.length, 'site', 'sites')} · ${count(report.vantage_points.length, 'vantage point', 'vantage points')} · ${count(report.networks.length, 'network', 'networks')}`),
          h('p', { class: 'facts' }, `${report.service.addresses.join(' and ')} · AS${report.service.asn} · ${report.started.replace('T', ' ')}`)),
        h('p', { class: v.ok ? 'verdict ok' : 'verdict bad' }, v.ok ? '✓ Everything held' : `✗ ${failed ? count(failed, 'failure', 'failures') : 'Failed'}`)),
      v.failed.length ? h('ul', { class: 'failed' }, v.failed.map(text => h('li', null, text))) : null,
    ];
  }

  function tiles() {
    const q = report.probe;
    const tile = (value, word) => h('div', { class: 'tile' }, h('b', null, value), h('span', { class: 'soft small' }, word));
    const worst = report.faults.filter(f => f.worst_ms !== null).sort((a, b) => b.worst_ms - a.worst_ms)[0];
    const quick = report.faults.find(f => f.median_ms !== null);
    return h('div', { class: 'tiles' },
      tile(report.convergence_ms === null ? 'never' : ms(report.convergence_ms), 'to converge'),
      quick ? tile(ms(quick.median_ms), `median outage: ${quick.kind} ${quick.site}`) : null,
      worst && worst !== quick ? tile(ms(worst.worst_ms), `longest outage: ${worst.kind} ${worst.site}`) : null,
      tile((q.sent - q.answered).toLocaleString('en'), `of ${q.sent.toLocaleString('en')} queries unanswered`),
      report.expectations.length ? tile(`${report.expectations.filter(e => e.ok).length} / ${report.expectations.length}`, 'expectations hold') : null,
      tile(ms(q.late_max_ms), q.stalls ? `prober late at most; it stood still ${q.stalls}×` : 'prober late at most'));
  }

  function footer() {
    const q = report.probe;
    return h('footer', null,
      h('p', null, `Made by ubique ${report.ubique_version} in ${at(report.duration_ms)}. Each vantage point asked every ${ms(q.every_ms)}; the prober was at most ${ms(q.late_max_ms)} late (99 %: ${ms(q.late_p99_ms)})${q.dropped ? `; ${q.dropped} records were lost` : ''}.`),
      h('p', null, 'Map: Natural Earth (public domain), Miller projection.'));
  }

  document.getElementById('page').append(...[header(), tiles(), landings(), faults(), timeline(), sessions(), surprises(), expectations(), events(), footer()].flat().filter(x => x));
})();
