// Before the first paint: the theme that was chosen, else the system's.
"use strict";
(() => {
  let theme = null;
  try { theme = localStorage.getItem("theme"); } catch { /* storage is closed to us */ }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
})();
