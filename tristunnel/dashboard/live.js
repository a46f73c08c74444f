// Keeps the page up to date with what the server sends once a second. Without
// it the page is complete, and "Reload" shows what is new.
(() => {
  'use strict';
  const state = document.getElementById('live');
  const pause = document.getElementById('pause');
  const reload = document.getElementById('reload');
  let source = null;
  let paused = false;
  let gone = false;

  const say = (text, name) => {
    if (state.textContent !== text) state.textContent = text;
    state.className = name;
  };
  const setText = (element, text) => {
    if (element.textContent !== text) element.textContent = text;
  };
  const each = (root, selector, then) => root.querySelectorAll(selector).forEach(then);
  // "href=page class=kind": which attributes of an element say what.
  const setAttributes = (element, pairs, data) => {
    for (const pair of pairs.split(' ')) {
      const [name, key] = pair.split('=');
      if (element.getAttribute(name) !== data[key]) element.setAttribute(name, data[key]);
    }
  };

  const fill = (row, data) => {
    setAttributes(row, row.dataset.attr, data);
    each(row, '[data-f]', (e) => setText(e, data[e.dataset.f]));
    each(row, '[data-attr]', (e) => setAttributes(e, e.dataset.attr, data));
  };

  const list = (name, rows) => {
    const place = document.querySelector('[data-list="' + name + '"]');
    const model = document.querySelector('[data-row="' + name + '"]').content;
    const old = new Map();
    for (const row of place.children) old.set(row.dataset.id, row);
    const wanted = new Set(rows.map((data) => data.id));
    for (const [id, row] of old) if (!wanted.has(id)) row.remove();
    let next = place.firstElementChild;
    for (const data of rows) {
      const row = old.get(data.id) || model.firstElementChild.cloneNode(true);
      fill(row, data);
      // Only what is in the wrong place is moved, or it would lose the focus.
      if (row === next) next = next.nextElementSibling;
      else place.insertBefore(row, next);
    }
    document.querySelector('[data-none="' + name + '"]').hidden = rows.length > 0;
  };

  const show = (view) => {
    each(document, '[data-total]', (e) => setText(e, view.totals[e.dataset.total]));
    each(document, '[data-set]', (e) => setAttributes(e, e.dataset.set, view.totals));
    for (const name in view.lists) list(name, view.lists[name]);
    for (const name in view.notes) {
      each(document, '[data-note="' + name + '"]', (e) => {
        setText(e, view.notes[name]);
        e.hidden = !view.notes[name];
      });
    }
  };

  const stop = () => {
    if (source) source.close();
    source = null;
  };
  const start = () => {
    source = new EventSource('dashboard/events' + location.search);
    source.onmessage = (event) => {
      const view = JSON.parse(event.data);
      if (view) {
        say('Live', 'on');
        show(view);
      } else {
        gone = true;
        stop();
        say('The tunnel is closed', 'off');
      }
    };
    source.onerror = () => say('Not live: the server does not answer', 'off');
  };
  pause.hidden = false;
  reload.hidden = true;
  pause.addEventListener('click', () => {
    paused = !paused;
    pause.setAttribute('aria-pressed', String(paused));
    pause.textContent = paused ? 'Go on' : 'Pause';
    if (paused) { stop(); say('Paused', ''); } else start();
  });
  // A page that nobody sees costs the server nothing.
  document.addEventListener('visibilitychange', () => {
    if (document.hidden) stop();
    else if (!paused && !source && !gone) start();
  });
  addEventListener('pagehide', stop);
  if (!document.hidden) start();
})();
