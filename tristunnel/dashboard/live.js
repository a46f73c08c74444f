// Keeps the page up to date with what the server sends once a second. Without
// it the page is complete, and "Reload" shows what is new.
(() => {
  'use strict';
  const state = document.getElementById('live');
  const pause = document.getElementById('pause');
  const reload = document.getElementById('reload');
  let source = null;
  let paused = false;

  const say = (text, name) => {
    if (state.textContent !== text) state.textContent = text;
    state.className = name;
  };
  const setText = (element, text) => {
    if (element.textContent !== text) element.textContent = text;
  };
  const setAttribute = (element, name, value) => {
    if (element.getAttribute(name) !== value) element.setAttribute(name, value);
  };
  const each = (root, selector, then) => root.querySelectorAll(selector).forEach(then);

  const fill = (row, data) => {
    const field = (element) => setText(element, data[element.dataset.f]);
    if (row.dataset.f) field(row);
    each(row, '[data-f]', field);
    each(row, '[data-d]', (e) => setAttribute(e, 'd', data[e.dataset.d]));
    each(row, '[data-end]', (e) => {
      setAttribute(e, 'href', 'dashboard/end?id=' + encodeURIComponent(data.id));
      setAttribute(e, 'aria-label', data.end);
    });
    each(row, '[data-grant]', (e) => {
      setAttribute(e, 'href', 'dashboard/grant?id=' + encodeURIComponent(data.id));
      setAttribute(e, 'aria-label', data.grant);
    });
    if (data.kind) {
      setAttribute(row, 'class', data.kind);
      each(row, 'time', (e) => setAttribute(e, 'datetime', data.datetime));
    }
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
      let row = old.get(data.id);
      if (!row) {
        row = model.firstElementChild.cloneNode(true);
        row.dataset.id = data.id;
      }
      fill(row, data);
      // Only what is in the wrong place is moved, or it would lose the focus.
      if (row === next) next = next.nextElementSibling;
      else place.insertBefore(row, next);
    }
    document.querySelector('[data-none="' + name + '"]').hidden = rows.length > 0;
  };

  const show = (view) => {
    for (const name in view.totals) {
      each(document, '[data-total="' + name + '"]', (e) => setText(e, view.totals[name]));
    }
    for (const name in view.paths) {
      each(document, '[data-path="' + name + '"]', (e) => setAttribute(e, 'd', view.paths[name]));
    }
    for (const name in view.lists) list(name, view.lists[name]);
    for (const name in view.notes) {
      each(document, '[data-note="' + name + '"]', (e) => {
        setText(e, view.notes[name]);
        e.hidden = !view.notes[name];
      });
    }
  };

  const start = () => {
    source = new EventSource('dashboard/events');
    source.onmessage = (event) => {
      say('Live', 'on');
      show(JSON.parse(event.data));
    };
    source.onerror = () => say('Not live: the server does not answer', 'off');
  };
  const stop = () => {
    if (source) source.close();
    source = null;
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
    else if (!paused && !source) start();
  });
  addEventListener('pagehide', stop);
  if (!document.hidden) start();
})();
