// How a request is shown. What visitors and services have written becomes text, by
// textContent, and never markup, an attribute or a script.
'use strict';
const show = (() => {
  const make = (tag, name, ...inside) => {
    const made = document.createElement(tag);
    if (name) made.className = name;
    for (const each of inside) {
      if (each !== null && each !== '') made.append(each);
    }
    return made;
  };
  const button = (text, act) => {
    const made = make('button', '', text);
    made.type = 'button';
    made.addEventListener('click', act);
    return made;
  };

  const time = (seconds) => {
    if (seconds === null) return '';
    if (seconds < 0.0995) return (seconds * 1000).toFixed(1) + ' ms';
    if (seconds < 10) return Math.round(seconds * 1000) + ' ms';
    return seconds.toFixed(1) + ' s';
  };
  const size = (bytes) => {
    if (bytes < 1000) return bytes + ' B';
    for (const unit of ['kB', 'MB', 'GB']) {
      bytes /= 1000;
      if (bytes < 999.5 || unit === 'GB') return bytes.toPrecision(3) + ' ' + unit;
    }
  };
  const statusClass = (status) => 's' + Math.floor(status / 100);
  const statusOf = (request) => {
    if (request.status !== null) return String(request.status);
    return request.over ? 'none' : '\u2026';
  };

  const row = (request, choose) => {
    const pick = make('button', '', request.method);
    pick.type = 'button';
    pick.setAttribute('aria-label', request.method + ' ' + request.path + ', ' + statusOf(request));
    const path = make('span', 'path', request.path);
    const place = make('td', '', path);
    if (request.replayOf) place.append(make('span', 'tag', 'sent again: ' + request.replayOf));
    if (request.messages) place.append(make('span', 'tag', request.messages + ' messages'));
    if (request.problem) place.append(make('span', 'tag', 'incomplete'));
    const status = make('td', 'n', statusOf(request));
    status.classList.add(request.status === null ? (request.over ? 's5' : 's3') : statusClass(request.status));
    const made = make('tr', '', make('td', '', pick), place, status,
      make('td', 'n', request.messages && !request.over ? 'open' : time(request.seconds)));
    made.dataset.id = request.id;
    made.addEventListener('click', () => choose(request.id));
    return made;
  };

  const headers = (pairs) => {
    const body = make('tbody');
    for (const [name, value] of pairs) body.append(make('tr', '', make('td', '', name), make('td', '', value)));
    return make('table', 'narrow head', body);
  };

  const body = (data) => {
    const made = make('div');
    const told = [size(data.size)];
    if (data.kept < data.size) told.push(data.kept ? 'the first ' + size(data.kept) + ' were kept' : 'none of it was kept');
    if (data.note) told.push(data.note);
    const title = make('h3', '', 'Body', make('span', 'dim', told.join(', ')));
    made.append(title);
    if (data.kind === 'none') return made;
    const text = make('pre', data.kind === 'hex' ? 'hex' : '', data.pretty || data.text);
    if (data.pretty && data.pretty !== data.text) {
      let raw = false;
      const turn = button('As it was sent', () => {
        raw = !raw;
        text.textContent = raw ? data.text : data.pretty;
        turn.textContent = raw ? 'Laid out' : 'As it was sent';
      });
      title.append(turn);
    }
    made.append(text);
    return made;
  };

  const part = (title, told, data) => {
    const made = make('div', '', make('h3', '', title, make('span', 'dim', told)));
    if (!data) return made;
    made.append(headers(data.headers), body(data.body));
    if (data.trailers.length) made.append(make('h3', '', 'Trailers'), headers(data.trailers));
    return made;
  };

  const timing = (one) => {
    if (one.seconds === null || one.firstByte === null) return null;
    const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    svg.setAttribute('viewBox', '0 0 100 10');
    svg.setAttribute('preserveAspectRatio', 'none');
    svg.setAttribute('aria-hidden', 'true');
    const first = one.seconds > 0 ? 100 * Math.min(1, one.firstByte / one.seconds) : 100;
    for (const [x, width] of [[0, first], [first, 100 - first]]) {
      const bar = document.createElementNS('http://www.w3.org/2000/svg', 'rect');
      for (const [name, value] of [['x', x], ['width', width], ['height', 10]]) bar.setAttribute(name, value);
      svg.append(bar);
    }
    return make('div', 'timing', svg);
  };

  const facts = (one) => {
    const told = [
      ['When', new Date(one.time * 1000).toLocaleString()],
      ['From', one.visitor || 'nobody said'],
      ['Service', one.target],
      ['First byte', time(one.firstByte) || 'none yet'],
      ['All of it', time(one.seconds) || 'not complete'],
    ];
    if (one.interim.length) told.push(['Before the response', one.interim.join(', ')]);
    if (one.replayOf) told.push(['Sent again', 'request ' + one.replayOf]);
    if (one.problem) told.push(['Incomplete', one.problem]);
    const list = make('dl', 'facts');
    for (const [name, value] of told) list.append(make('div', '', make('dt', '', name), make('dd', '', value)));
    return list;
  };

  const messages = (one) => {
    const list = make('ul', 'messages');
    for (const each of one.frames) {
      const told = [each.fromVisitor ? 'visitor' : 'service', each.opcode, size(each.size), '+' + time(each.seconds)];
      if (each.kept < each.size) told.push('the first ' + size(each.kept) + ' were kept');
      if (each.note) told.push(each.note);
      list.append(make('li', each.fromVisitor ? 'up' : '', make('span', 'dim', told.join(', ')),
        each.text ? make('pre', each.kind === 'hex' ? 'hex' : '', each.text) : null));
    }
    const gone = one.framesGone ? one.framesGone + ' earlier ones are not kept' : '';
    return make('div', '', make('h3', '', 'Messages', make('span', 'dim', gone)), list);
  };

  const whole = (one, acts) => {
    const answer = one.status === null ? 'none' : ('HTTP/' + one.response.version + ' ' + one.status + ' ' + one.reason);
    return [
      make('h2', '', one.method + ' ' + one.path),
      make('p', 'acts', ...acts),
      facts(one), timing(one),
      part('Request', 'HTTP/' + one.request.version + ' to ' + one.host, one.request),
      part('Response', answer, one.response),
      one.messages ? messages(one) : null,
    ].filter((each) => each !== null);
  };

  return { make, button, row, whole };
})();
