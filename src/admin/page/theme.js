// The colour scheme: that of the system until the user chooses one. Loaded before the first paint, to avoid a flash.
(() => {
  const KEY = 'pulsegate.theme';
  const root = document.documentElement;
  const system = matchMedia('(prefers-color-scheme: dark)');
  const chosen = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // storage is denied: the choice lasts as long as the page
    }
  };
  const isDark = () => (root.dataset.theme ? root.dataset.theme === 'dark' : system.matches);
  if (['light', 'dark'].includes(chosen())) root.dataset.theme = chosen();

  addEventListener('DOMContentLoaded', () => {
    const button = document.getElementById('theme');
    const update = () => {
      button.setAttribute('aria-pressed', isDark());
      button.title = `Dark is ${isDark() ? 'on' : 'off'}${root.dataset.theme ? '' : ', as your system has it'}`;
    };
    button.addEventListener('click', () => {
      root.dataset.theme = isDark() ? 'light' : 'dark';
      try {
        localStorage.setItem(KEY, root.dataset.theme);
      } catch {
        // Storage is denied, as above.
      }
      update();
    });
    system.addEventListener('change', update);
    update();
  });
})();
