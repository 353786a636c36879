/** Packages that the page is made of, from the lock file; see vite.config.ts. */
declare module "virtual:packages" {
  const packages: { name: string; version: string; license: string }[];
  export default packages;
}
