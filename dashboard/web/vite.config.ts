import { defineConfig } from "vite";

/** Where `npm run dev` finds a coordinator. */
const coordinator = process.env["PHALANX_URL"] ?? "http://127.0.0.1:7080";

export default defineConfig({
  build: {
    outDir: "../dist",
    emptyOutDir: true,
    target: "es2022",
    // The coordinator's content security policy allows its own files only: nothing inline, no data addresses.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // What the licences of the packages inside ask for.
    license: { fileName: "licenses.md" },
  },
  server: { proxy: { "/api": coordinator } },
});
