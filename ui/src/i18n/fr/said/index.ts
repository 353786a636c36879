// All of them, as one bundle that is read when the language is spoken.
export default import.meta.glob<Record<string, string>>("./*.json", { eager: true, import: "default" });
