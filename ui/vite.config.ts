import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

// One entry for now: the desktop app. React's automatic JSX runtime needs no plugin.
export default defineConfig({
  root: fileURLToPath(new URL(".", import.meta.url)),
  base: "./",
  build: {
    outDir: "dist",
    emptyOutDir: true,
    target: "es2022",
    // WebKit under a strict CSP loads no inline scripts or data: URLs.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rollupOptions: { input: "desktop.html" },
  },
  oxc: { jsx: { runtime: "automatic" } },
});
