import i18next from "i18next";
import { initReactI18next } from "react-i18next";

/** Languages, each by its own name. */
export const LANGUAGES = { en: "English", de: "Deutsch", fr: "Français", zh: "中文" } as const;
export type Language = keyof typeof LANGUAGES;

type Tree = { [key: string]: string | Tree };

/** One file for each language and part of the page; the file's name is the first part of its keys. */
const files = import.meta.glob<Tree>("./*/*.json", { eager: true, import: "default" });
/** One file for each language and part of the engine: its sentences, of which the keys begin with `said`. */
const sentences = import.meta.glob<Tree>("./*/said/*.json", { eager: true, import: "default" });

/** Files by language and their own names. */
function byLanguage(files: Record<string, Tree>): Record<string, Tree> {
  const found: Record<string, Tree> = {};
  for (const [path, tree] of Object.entries(files)) {
    const [, language = "", part = ""] = /^\.\/(\w+)\/(?:said\/)?(\w+)\.json$/.exec(path) ?? [];
    found[language] = { ...found[language], [part]: tree };
  }
  return found;
}

/** Catalogues by language. */
export function catalogues(): Record<string, Tree> {
  const said = byLanguage(sentences);
  const parts = Object.entries(byLanguage(files));
  return Object.fromEntries(parts.map(([of, tree]) => [of, { ...tree, said: said[of] ?? {} }]));
}

/** The engine's sentences as it speaks them, by part and code. */
export function spoken(): Record<string, Record<string, string>> {
  return (byLanguage(sentences).en ?? {}) as Record<string, Record<string, string>>;
}

function isLanguage(text: string | null | undefined): text is Language {
  return text !== null && text !== undefined && text in LANGUAGES;
}

/** The first of the person's languages that there is. */
function first(): Language {
  return navigator.languages.map((tag) => tag.slice(0, 2)).find(isLanguage) ?? "en";
}

function tell(language: string): void {
  document.documentElement.lang = language === "zh" ? "zh-Hans" : language;
}

/** Makes the catalogues ready; before anything is shown. */
export function speak(language: Language = first()): void {
  const resources = Object.fromEntries(
    Object.entries(catalogues()).map(([of, tree]) => [of, { translation: tree }]),
  );
  void i18next.use(initReactI18next).init({
    resources,
    lng: language,
    fallbackLng: "en",
    // Resources are here already: the first picture is in the right language.
    initAsync: false,
    // React escapes.
    interpolation: { escapeValue: false },
  });
  tell(language);
}

/** Speaks another language from now on. */
export function changeLanguage(language: Language): void {
  void i18next.changeLanguage(language);
  tell(language);
}

/** The language that is spoken. */
export function language(): Language {
  return isLanguage(i18next.language) ? i18next.language : "en";
}

/** For `Intl`: the person's own region where it has this language. */
export function locale(): string {
  const spoken = language();
  return (
    navigator.languages.find((tag) => tag.slice(0, 2) === spoken) ?? (spoken === "zh" ? "zh-CN" : spoken)
  );
}
