import i18next from "i18next";
import { initReactI18next } from "react-i18next";

/** Languages, each by its own name. */
export const LANGUAGES = { en: "English", de: "Deutsch", fr: "Français", zh: "中文" } as const;
export type Language = keyof typeof LANGUAGES;

type Tree = { [key: string]: string | Tree };

/** One file for each language and part of the page; the file's name is the first part of its keys. */
const files = import.meta.glob<Tree>("./*/*.json", { eager: true, import: "default" });
/** The engine's sentences of each language, in a bundle of their own. */
const bundles = import.meta.glob<Record<string, Record<string, string>>>("./*/said/index.ts", {
  import: "default",
});

/** What the engine says, by part and code. */
export type Sentences = Record<string, Record<string, string>>;

/** Sentences of the languages that were spoken, and of English where another one was. */
const heard = new Map<Language, Sentences>();

/** Catalogues by language, without the engine's sentences. */
export function catalogues(): Record<string, Tree> {
  const found: Record<string, Tree> = {};
  for (const [path, tree] of Object.entries(files)) {
    const [, language = "", part = ""] = /^\.\/(\w+)\/(\w+)\.json$/.exec(path) ?? [];
    found[language] = { ...found[language], [part]: tree };
  }
  return found;
}

/** Reads the engine's sentences in a language; in English as the engine speaks them, with what stands at each place. */
export async function sentences(language: Language): Promise<Sentences> {
  const parts = (await bundles[`./${language}/said/index.ts`]?.()) ?? {};
  return Object.fromEntries(
    Object.entries(parts).map(([path, codes]) => [path.replace(/^\.\/(\w+)\.json$/, "$1"), codes]),
  );
}

/** The engine's sentences as it speaks them; nothing in English, and until those of the person's language are read too. */
export function spoken(): Sentences | null {
  return language() !== "en" && heard.has(language()) ? (heard.get("en") ?? null) : null;
}

/** Makes ready what the engine says; until then its words are shown in English. In English nothing is to be read. */
async function hear(language: Language): Promise<void> {
  if (language === "en" || heard.has(language)) return;
  const [english, own] = await Promise.all([sentences("en"), sentences(language)]);
  heard.set("en", english).set(language, own);
  i18next.addResourceBundle(language, "translation", { said: own });
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

/** Makes the catalogues ready, before anything is shown; what the engine says, a moment later. */
export function speak(language: Language = first()): Promise<void> {
  const resources = Object.fromEntries(
    Object.entries(catalogues()).map(([of, tree]) => {
      const said = of === "en" ? undefined : heard.get(of as Language);
      return [of, { translation: said === undefined ? tree : { ...tree, said } }];
    }),
  );
  void i18next.use(initReactI18next).init({
    resources,
    lng: language,
    fallbackLng: "en",
    // Resources are here already: the first picture is in the right language.
    initAsync: false,
    // React escapes.
    interpolation: { escapeValue: false },
    // What the engine says comes later, and is shown then.
    react: { bindI18nStore: "added" },
  });
  tell(language);
  return hear(language);
}

/** Speaks another language from now on; what the engine says, a moment later. */
export function changeLanguage(language: Language): Promise<void> {
  void i18next.changeLanguage(language);
  tell(language);
  return hear(language);
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
