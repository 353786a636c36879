import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const here = fileURLToPath(new URL(".", import.meta.url));
const PACKAGES = "virtual:packages";

/** Names, versions and licences of what the page is made of, out of the lock file. */
function packages() {
  const lock = JSON.parse(readFileSync(`${here}package-lock.json`, "utf8"));
  const shipped = Object.entries(lock.packages).filter(([path, of]) => path !== "" && !of.dev && !of.devOptional);
  const named = shipped.map(([path, { version, license }]) => ({
    name: path.replace(/^.*node_modules\//, ""),
    version,
    license,
  }));
  return named.sort((a, b) => a.name.localeCompare(b.name));
}

/**
 * The app freezes `Object.prototype`, so that no script can change what all objects inherit. d3-color, which React Flow
 * brings along, assigns `constructor` on a plain object, which then throws; here it defines the property instead.
 */
const frozen = {
  name: "frozen-prototype",
  transform(code: string, id: string) {
    if (!/[\\/]d3-color[\\/]/.test(id)) return null;
    const assigned = "prototype.constructor = constructor;";
    if (!code.includes(assigned)) throw new Error(`${id} no longer assigns constructor: take this transform out`);
    const defined = 'Object.defineProperty(prototype, "constructor", { value: constructor, writable: true });';
    return { code: code.replace(assigned, defined), map: null };
  },
};

// Two entries that differ only in how they reach the engine: the desktop app's window, and the same page over a loopback
// host for tests in a browser. Each build takes one, so that the app's bundle holds no code of the other.
export default defineConfig(({ mode }) => ({
  root: here,
  base: "./",
  plugins: [
    frozen,
    {
      name: "packages",
      resolveId: (id) => (id === PACKAGES ? `\0${PACKAGES}` : null),
      load: (id) => (id === `\0${PACKAGES}` ? `export default ${JSON.stringify(packages())}` : null),
    },
  ],
  build: {
    outDir: mode === "devhost" ? "dist-devhost" : "dist",
    emptyOutDir: true,
    target: "es2022",
    cssTarget: ["chrome123", "safari17.5"],
    // WebKit under a strict CSP loads no inline scripts or data: URLs.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 1800,
    rollupOptions: {
      input: mode === "devhost" ? "devhost.html" : "desktop.html",
      // "use client" is for servers; there is none.
      onwarn: (warning, warn) => warning.code === "MODULE_LEVEL_DIRECTIVE" || warn(warning),
    },
  },
  // React's automatic JSX runtime needs no plugin.
  oxc: { jsx: { runtime: "automatic" } },
  test: { environment: "jsdom", include: ["test/**/*.test.{ts,tsx}"], restoreMocks: true },
}));
