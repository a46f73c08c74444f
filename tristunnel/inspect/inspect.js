// Keeps the list of requests up to date, shows one of them, and sends it again.
(() => {
  'use strict';
  const at = (id) => document.getElementById(id);
  const EVERY = 1000;
  const known = new Map();
  let version = 0;
  let chosen = 0;
  let shownVersion = 0;
  let paused = false;
  let timer = null;
  let busy = false;
  let asked = 0;

  const call = async (method, params) => {
    const answer = await fetch('rpc', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ jsonrpc: '2.0', id: 1, method, params }),
    });
    if (!answer.ok) throw new Error((await answer.text()).trim());
    const result = await answer.json();
    if (result.error) throw new Error(result.error.message);
    return result.result;
  };
  const say = (text, name) => {
    if (at('live').textContent !== text) at('live').textContent = text;
    at('live').className = name;
  };
  const complain = (place, error) => {
    place.hidden = !error;
    place.textContent = error ? error.message : '';
  };
  const wanted = () => ({ filter: at('filter').value, reveal: at('reveal').checked });

  // The list

  const mark = () => {
    for (const row of at('rows').children) row.classList.toggle('chosen', Number(row.dataset.id) === chosen);
  };
  const list = (found) => {
    const rows = at('rows');
    const ids = new Set(found.ids);
    for (const row of [...rows.children]) {
      const id = Number(row.dataset.id);
      if (!ids.has(id)) { row.remove(); known.delete(id); }
    }
    for (const request of found.requests) {
      const old = known.get(request.id);
      const made = show.row(request, choose);
      if (old) {
        const focused = old.row.contains(document.activeElement);
        old.row.replaceWith(made);
        if (focused) made.querySelector('button').focus();
      } else {
        // The newest comes first; one that a filter lets in later has its own place.
        const next = [...rows.children].find((row) => Number(row.dataset.id) < request.id);
        rows.insertBefore(made, next || null);
      }
      known.set(request.id, { row: made, request });
    }
    at('none').hidden = rows.children.length > 0;
    at('notes').replaceChildren(...found.notes.map((note) =>
      show.make('li', '', note.target + ': ' + note.count + ' not shown: ' + note.reason)));
    mark();
  };

  const look = async () => {
    if (busy) return;
    busy = true;
    const mine = asked;
    try {
      const found = await call('listRequests', { since: version, ...wanted() });
      if (mine === asked) {
        version = found.version;
        list(found);
        complain(at('wrong'), null);
        if (chosen) await detail(false);
      }
      say('Live', 'on');
    } catch (error) {
      if (error instanceof TypeError) say('Not live: the client does not answer', 'off');
      else { say('Not live', 'off'); complain(at('wrong'), error); }
    }
    busy = false;
    if (mine !== asked) look();
  };
  // All is asked for anew: another filter, or secrets.
  const anew = () => {
    asked += 1;
    version = shownVersion = 0;
    known.clear();
    at('rows').replaceChildren();
    const words = new URLSearchParams({ filter: at('filter').value });
    if (at('reveal').checked) words.set('reveal', 'yes');
    at('har').href = 'requests.har?' + words;
    look();
  };

  // One of them

  const detail = async (isAsked) => {
    const entry = known.get(chosen);
    if (!isAsked && entry && entry.request.version === shownVersion) return;
    if (!isAsked && !entry) return;
    const id = chosen;
    const one = await call('getRequest', { id, reveal: at('reveal').checked });
    if (id !== chosen) return;
    shownVersion = one.version;
    const copied = show.button('Copy as curl', async () => {
      await navigator.clipboard.writeText(one.curl);
      copied.textContent = 'Copied';
    });
    at('one').replaceChildren(...show.whole(one, [
      show.button('Send again', () => again({ id })),
      show.button('Edit and send\u2026', () => edit(one)),
      copied,
    ]));
    at('choose').hidden = true;
    at('one').hidden = false;
  };
  const choose = async (id) => {
    chosen = id;
    shownVersion = 0;
    mark();
    try { await detail(true); complain(at('wrong'), null); } catch (error) { complain(at('wrong'), error); }
  };

  // Sending again

  const again = async (params) => {
    say('Sending\u2026', '');
    try {
      const made = await call('replayRequest', params);
      complain(at('wrong'), null);
      await look();
      await choose(made.id);
    } catch (error) { complain(at('wrong'), error); }
  };
  let editing = 0;
  let bodyBefore = null;
  const edit = (one) => {
    editing = one.id;
    at('method').value = one.method;
    at('path').value = one.path;
    at('headers').value = one.request.headers
      .filter(([name]) => !['content-length', 'transfer-encoding'].includes(name.toLowerCase()))
      .map(([name, value]) => name + ': ' + value).join('\n');
    const body = one.request.body;
    const isText = body.kind !== 'hex' && !body.note && body.kept === body.size;
    bodyBefore = isText ? body.text : '';
    at('body').value = bodyBefore;
    bodyBefore = at('body').value;
    at('bodynote').textContent = isText ? '' : 'as it was sent, unless you write another one';
    complain(at('editwrong'), null);
    at('edit').showModal();
  };
  at('cancel').addEventListener('click', () => at('edit').close());
  at('form').addEventListener('submit', async (event) => {
    event.preventDefault();
    const lines = at('headers').value.split('\n').filter((line) => line.trim());
    const params = {
      id: editing,
      method: at('method').value.trim(),
      path: at('path').value.trim(),
      headers: lines.map((line) => {
        const colon = line.indexOf(':');
        return colon < 0 ? [line.trim(), ''] : [line.slice(0, colon).trim(), line.slice(colon + 1).trim()];
      }),
    };
    if (at('body').value !== bodyBefore) params.body = at('body').value;
    try {
      const made = await call('replayRequest', params);
      at('edit').close();
      await look();
      await choose(made.id);
    } catch (error) { complain(at('editwrong'), error); }
  });

  // The bar

  let typing = null;
  at('filter').addEventListener('input', () => {
    clearTimeout(typing);
    typing = setTimeout(anew, 250);
  });
  at('reveal').addEventListener('change', anew);
  at('clear').addEventListener('click', async () => {
    await call('clearRequests', {});
    chosen = 0;
    at('one').hidden = true;
    at('choose').hidden = false;
    anew();
  });
  const start = () => { if (!timer && !paused) { timer = setInterval(look, EVERY); look(); } };
  const stop = () => { clearInterval(timer); timer = null; };
  at('pause').addEventListener('click', () => {
    paused = !paused;
    at('pause').setAttribute('aria-pressed', String(paused));
    at('pause').textContent = paused ? 'Go on' : 'Pause';
    if (paused) { stop(); say('Paused', ''); } else start();
  });
  // A page that nobody sees costs the client nothing.
  document.addEventListener('visibilitychange', () => { if (document.hidden) stop(); else start(); });
  start();
})();
