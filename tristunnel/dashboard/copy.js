// Copies what stands beside a button, or what the button says it copies.
(() => {
  'use strict';
  document.documentElement.classList.add('script');

  // Browsers have no clipboard for pages that came without TLS.
  const byHand = (text) => {
    const field = document.createElement('textarea');
    field.value = text;
    field.className = 'unseen';
    document.body.append(field);
    field.select();
    const done = document.execCommand('copy');
    field.remove();
    return done;
  };
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return byHand(text);
    }
  };
  document.addEventListener('click', async (event) => {
    const button = event.target.closest('button.copy');
    if (!button) return;
    const text = button.dataset.copies || button.parentNode.querySelector('code').textContent;
    const done = await copy(text);
    button.focus();
    button.textContent = done ? 'Copied' : 'Not copied';
    setTimeout(() => { button.textContent = 'Copy'; }, 2000);
  });
})();
