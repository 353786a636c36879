import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const here = fileURLToPath(new URL(".", import.meta.url));

/** Statements that throw where `Object.prototype` is frozen, and what says the same without. */
const FROZEN = [
  {
    in: /[\\/]d3-color[\\/]/,
    from: "prototype.constructor = constructor;",
    to: 'Object.defineProperty(prototype, "constructor", { value: constructor, writable: true, enumerable: true });',
  },
  {
    in: /[\\/]echarts[\\/]lib[\\/]core[\\/]Scheduler/,
    from: "target[name_1] = noop;",
    to: "Object.defineProperty(target, name_1, { value: noop, writable: true, enumerable: true });",
  },
];

/**
 * The app freezes `Object.prototype`, so that no script can change what all objects inherit; then `constructor` cannot be
 * assigned on a plain object any more. Two packages do that when they load.
 */
const frozen = {
  name: "frozen-prototype",
  transform(code: string, id: string) {
    const patch = FROZEN.find((known) => known.in.test(id));
    if (patch === undefined) return null;
    if (!code.includes(patch.from)) throw new Error(`${id} has no '${patch.from}' any more: take the change out`);
    return { code: code.replace(patch.from, patch.to), map: null };
  },
};

// Two entries that differ only in how they reach the engine: the desktop app's window, and the same page over a loopback
// host for tests in a browser. Each build takes one, so that the app's bundle holds no code of the other.
export default defineConfig(({ mode }) => ({
  root: here,
  base: "./",
  plugins: [frozen],
  // For tests: one file of the page, third-party-licences.txt, is not in its folder.
  server: { fs: { allow: [`${here}..`] } },
  build: {
    outDir: mode === "devhost" ? "dist-devhost" : "dist",
    emptyOutDir: true,
    target: "es2022",
    cssTarget: ["chrome123", "safari17.5"],
    // WebKit under a strict CSP loads no inline scripts or data: URLs.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 2100,
    rollupOptions: {
      input: mode === "devhost" ? "devhost.html" : "desktop.html",
      // "use client" is for servers; there is none.
      onwarn: (warning, warn) => warning.code === "MODULE_LEVEL_DIRECTIVE" || warn(warning),
    },
  },
  // React's automatic JSX runtime needs no plugin.
  oxc: { jsx: { runtime: "automatic" } },
  test: {
    include: ["test/**/*.test.{ts,tsx}"],
    css: { include: [/tokens\.css/, /\.css\?raw$/] },
    restoreMocks: true,
    // React, its components and axe are read once, not for each file: half the time. Each test takes away what it put up.
    isolate: false,
    // One is left to others otherwise, which of two is half.
    maxWorkers: "100%",
    // Busy machines are slow; a test that hangs still ends.
    testTimeout: 60_000,
  },
}));
