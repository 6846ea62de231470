"""A few sentences in many languages, written for the tests, and the encodings in which each is met."""

from __future__ import annotations

LATIN_1 = ("cp1252", "iso8859_15", "mac_roman", "cp850")
LATIN_2 = ("cp1250", "iso8859_2", "mac_latin2", "cp852")
BALTIC = ("cp1257", "iso8859_13", "cp775")
CYRILLIC = ("cp1251", "iso8859_5", "mac_cyrillic", "cp866")

# Language: its encodings, and four sentences.
TONGUES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "English": (
        ("cp1252", "mac_roman"),
        (
            "It’s a small café behind the station – you can’t miss it.",
            "She said “hello” and left her résumé on the desk…",
            "They’d never tasted crème brûlée before, so Zoë ordered two.",
            "The naïve answer isn’t always wrong; it’s only early.",
        ),
    ),
    "German": (
        LATIN_1,
        (
            "Warum fährt der Zug heute später?",
            "Weil über Nacht ein Baum auf die Gleise gestürzt ist, müssen wir warten.",
            "Das Frühstück gibt es bis zehn, danach räumt die Köchin alles weg.",
            "Ich möchte wissen, ob die Straße zum Schloss geöffnet ist.",
        ),
    ),
    "French": (
        LATIN_1,
        (
            "Où as-tu laissé les clés de la voiture ?",
            "Je les ai posées près de la fenêtre, à côté du vieux téléphone.",
            "Ma grand-mère préparait une tarte aux pêches chaque été.",
            "Ça ne m’étonne pas : le garçon a déjà mangé.",
        ),
    ),
    "Spanish": (
        LATIN_1,
        (
            "¿Cuántos años tiene tu hermana pequeña?",
            "Mañana cumplirá veintitrés y quiere celebrarlo en la montaña.",
            "El tren salió con retraso porque nevó toda la noche en el último túnel.",
            "¡Qué alegría! Así podré dormir más después del almuerzo.",
        ),
    ),
    "Portuguese": (
        LATIN_1,
        (
            "Você já viu a exposição de fotografias?",
            "Ainda não, mas a minha irmã disse que é muito boa e que vale a pena ir até lá.",
            "O avião atrasou três horas por causa da tempestade de verão.",
            "As crianças não queriam sair da água, nem com pão e maçãs.",
        ),
    ),
    "Italian": (
        LATIN_1,
        (
            "Perché il negozio è già chiuso?",
            "Forse il proprietario è andato in città e tornerà più tardi.",
            "La felicità non è una meta, però qualche volta si può incontrare.",
            "Lunedì sarà difficile trovare un caffè aperto laggiù.",
        ),
    ),
    "Dutch": (
        LATIN_1,
        (
            "Hoeveel cliënten komen er vanmiddag?",
            "Eén patiënt heeft afgezegd, maar de reünie gaat gewoon door.",
            "De ideeën van mijn collega’s uit België zijn heel efficiënt.",
            "We dronken koffie in een café waar de ruïne te zien was.",
        ),
    ),
    "Swedish": (
        LATIN_1,
        (
            "Varför går du inte hem än?",
            "Jag måste vänta på min äldre syster, hon köper mjölk och bröd.",
            "På sommaren badar vi i sjön bakom den röda ladan.",
            "Det är skönt när löven faller och luften blir kallare.",
        ),
    ),
    "Danish": (
        LATIN_1,
        (
            "Hvornår åbner det lille museum på øen?",
            "Først klokken ti, så vi når både at gå en tur og købe æbler.",
            "Min søster bor på en gård, hvor hønsene løber frit.",
            "Det blæser hårdt, og færgen sejler måske ikke før i morgen.",
        ),
    ),
    "Finnish": (
        LATIN_1,
        (
            "Missä äiti säilyttää pyöränsä?",
            "Se on yleensä pihalla, mutta tänään se näyttää olevan kellarissa.",
            "Lähdemme mökille, kun sää lämpenee ja jää on sulanut järvestä.",
            "Hän käyttää vähän suolaa, mutta hyvää öljyä.",
        ),
    ),
    "Icelandic": (
        ("cp1252", "mac_iceland"),
        (
            "Hvað ætlar þú að gera í kvöld?",
            "Ég ætla að sjóða fisk og lesa síðan góða bók við gluggann.",
            "Það var kalt á fjöllum og við fórum heim áður en myrkrið kom.",
            "Þau eiga tvö börn og stóran hund.",
        ),
    ),
    "Czech": (
        LATIN_2,
        (
            "Kde jsi koupil ten čerstvý chléb?",
            "V pekařství za rohem, mají otevřeno už od šesti hodin ráno.",
            "Příští týden pojedeme k babičce, protože slaví osmdesáté narozeniny.",
            "Když prší, děti si hrají uvnitř a malují koně.",
        ),
    ),
    "Slovak": (
        LATIN_2,
        (
            "Prečo dnes nejde žiadny autobus?",
            "Lebo vodiči štrajkujú a cesta do mesta je zavretá až do večera.",
            "Môj starý otec mal veľkú záhradu, kde rástli slivky a ríbezle.",
            "Keď sme sa vrátili, dážď už prestal a všade bolo ticho.",
        ),
    ),
    "Polish": (
        LATIN_2,
        (
            "Dlaczego jesteś dziś taki zmęczony?",
            "Bo wczoraj do późna pomagałem siostrze przenosić ciężkie pudła.",
            "W sobotę pójdziemy nad rzekę, jeśli pogoda się nie zepsuje.",
            "Moja babcia piekła najlepsze pączki w całej okolicy, wszyscy ją o to prosili.",
        ),
    ),
    "Hungarian": (
        LATIN_2,
        (
            "Hol vetted ezt a gyönyörű sálat?",
            "A piacon, egy idős nénitől, aki minden szombaton ott árul.",
            "Tegnap este olyan erősen fújt a szél, hogy kidőlt a fűzfa.",
            "Szeretnék egy könnyű ebédet, mert délután még úszni megyek.",
        ),
    ),
    "Romanian": (
        ("cp1250", "iso8859_2", "cp852"),
        (
            "De ce nu ai venit aseară la noi?",
            "Am lucrat până târziu şi după aceea mi-a fost prea somn să mai ies.",
            "Bunica păstra cheile într-o cutie de lemn, lângă fereastră.",
            "Vântul bate şi copiii aşteaptă maşina în faţa şcolii.",
        ),
    ),
    "Croatian": (
        LATIN_2,
        (
            "Gdje ćemo večerati kad stigneš?",
            "Možemo otići u mali restoran kraj rijeke, tamo je uvijek tiho.",
            "Moj je djed živio na otoku i svako jutro išao u ribolov.",
            "Što je više kiše, to je šuma ljepša i cvijeće jače miriše.",
        ),
    ),
    "Slovenian": (
        LATIN_2,
        (
            "Kdaj se začne šola za tvojega sina?",
            "Prvega septembra, zato že zdaj iščemo čevlje in zvezke.",
            "Če bo lepo vreme, bomo šli peš čez hrib do jezera.",
            "Moja žena peče jabolčni zavitek, ki ga imajo vsi radi.",
        ),
    ),
    "Lithuanian": (
        BALTIC,
        (
            "Kodėl šiandien uždarytas muziejus?",
            "Todėl, kad darbuotojai švenčia, o rytoj jis vėl bus atidarytas.",
            "Mano močiutė augino agurkus ir pomidorus mažame šiltnamyje.",
            "Vasarą mėgstame maudytis ežere, kol saulė nenusileidžia už miško.",
        ),
    ),
    "Latvian": (
        BALTIC,
        (
            "Kāpēc tu šodien esi tik kluss?",
            "Es visu nakti lasīju grāmatu un tagad gribu tikai gulēt.",
            "Mūsu kaimiņš audzē bites, un viņa medus ir ļoti garšīgs.",
            "Vasarā mēs braucam pie jūras un cepam zivis uz oglēm.",
        ),
    ),
    "Estonian": (
        BALTIC,
        (
            "Miks sa nii vara üles tõusid?",
            "Tahtsin enne tööd metsas jalutada, sest õhk oli värske ja vaikne.",
            "Vanaema keetis mustikamoosi ja pani purgid keldrisse.",
            "Õhtul istume lõkke ääres ning räägime vanu lugusid.",
        ),
    ),
    "Turkish": (
        ("cp1254", "iso8859_9", "cp857", "mac_turkish"),
        (
            "Bu akşam yemeğe kimler gelecek?",
            "Komşularımız ve kızımın öğretmeni gelecek, o yüzden erken başlıyorum.",
            "Dağdan inerken yağmura yakalandık, ama kimse şikâyet etmedi.",
            "İstasyonun karşısındaki küçük dükkânda sıcak simit satılıyor.",
        ),
    ),
    "Russian": (
        (*CYRILLIC, "koi8_r"),
        (
            "Почему ты так поздно вернулся?",
            "Автобус сломался за городом, и мы два часа ждали следующего.",
            "Бабушка всегда хранила варенье в тёмном шкафу под лестницей.",
            "Если завтра не будет дождя, поедем на рыбалку с соседями.",
        ),
    ),
    "Ukrainian": (
        ("cp1251", "iso8859_5", "koi8_u"),
        (
            "Чому ти сьогодні такий мовчазний?",
            "Бо вночі я їхав потягом і зовсім не виспався, зате побачив схід сонця.",
            "Моя бабуся варила найкращий борщ у нашому селі.",
            "Якщо погода не зіпсується, підемо завтра до лісу по гриби.",
        ),
    ),
    "Bulgarian": (
        CYRILLIC,
        (
            "Защо магазинът е затворен днес?",
            "Собственикът замина за морето и ще се върне чак в понеделник.",
            "Баба ми печеше баница всяка неделя и ни чакаше на масата.",
            "Ако утре е топло, ще отидем пеша до старата мелница.",
        ),
    ),
    "Serbian": (
        ("cp1251", "iso8859_5"),
        (
            "Зашто си јуче отишао тако рано?",
            "Морао сам да сачекам брата на станици, воз му је каснио цео сат.",
            "Деда је сваког пролећа садио шљиве поред потока.",
            "Ако не буде кише, ићи ћемо пешке до манастира.",
        ),
    ),
    "Greek": (
        ("cp1253", "iso8859_7", "mac_greek", "cp737"),
        (
            "Γιατί έκλεισες το παράθυρο;",
            "Επειδή φυσάει δυνατά και τα χαρτιά πέφτουν από το τραπέζι.",
            "Η γιαγιά μου έφτιαχνε γλυκό του κουταλιού κάθε καλοκαίρι.",
            "Αν προλάβουμε το πλοίο, θα φτάσουμε στο νησί πριν νυχτώσει.",
        ),
    ),
    "Hebrew": (
        ("cp1255", "iso8859_8", "cp862"),
        (
            "למה החנות סגורה היום?",
            "בעל הבית נסע לבקר את הנכדים שלו ויחזור רק ביום ראשון.",
            "סבתא שלי אפתה עוגות תפוחים וחילקה לכל השכנים.",
            "אם לא ירד גשם נצא מחר לטיול ליד הנחל.",
        ),
    ),
    "Arabic": (
        ("cp1256", "iso8859_6"),
        (
            "لماذا تأخر القطار هذا الصباح؟",
            "لأن الثلج غطى السكة طوال الليل وانتظر الركاب في المحطة.",
            "كانت جدتي تخبز الخبز كل يوم وتوزعه على الجيران.",
            "إذا تحسن الطقس فسوف نذهب غدا إلى الشاطئ.",
        ),
    ),
    "Thai": (
        ("cp874",),
        (
            "ทำไมวันนี้ร้านปิดเร็วจัง",
            "เพราะเจ้าของร้านต้องไปรับลูกที่สถานีรถไฟ",
            "คุณยายปลูกผักไว้หลังบ้านและแบ่งให้เพื่อนบ้านเสมอ",
            "ถ้าฝนไม่ตกพรุ่งนี้เราจะไปเดินเล่นริมแม่น้ำ",
        ),
    ),
    "Korean": (
        ("cp949",),
        (
            "오늘은 왜 가게 문을 일찍 닫았어요?",
            "주인이 손님을 마중하러 역에 가야 했기 때문입니다.",
            "할머니는 마당에서 키운 상추를 이웃과 나누어 드셨어요.",
            "내일 비가 오지 않으면 강가를 따라 걸을 생각이에요.",
        ),
    ),
    "Chinese": (
        ("gb18030",),
        (
            "为什么今天商店这么早关门？",
            "因为老板要去车站接他的孩子，所以提前下班了。",
            "奶奶在院子里种了很多菜，常常送给邻居。",
            "如果明天不下雨，我们就去河边散步。",
        ),
    ),
    "Traditional Chinese": (
        ("big5",),
        (
            "為什麼今天商店這麼早關門？",
            "因為老闆要去車站接他的孩子，所以提前下班了。",
            "奶奶在院子裡種了很多菜，常常送給鄰居。",
            "如果明天不下雨，我們就去河邊散步。",
        ),
    ),
    "Japanese": (
        ("cp932", "euc_jp"),
        (
            "どうして今日は店が早く閉まったのですか。",
            "店長が駅まで子どもを迎えに行かなければならなかったからです。",
            "祖母は庭で野菜を育てて、いつも近所の人に分けていました。",
            "明日雨が降らなければ、川のそばを散歩するつもりです。",
        ),
    ),
}
LENGTHS = {"short": 1, "medium": 2, "long": 4}


def cases() -> list[tuple[str, str, str, str]]:
    """(language, encoding, length, a table's text) of all that the encoding can write."""
    found = []
    for language, (encodings, sentences) in TONGUES.items():
        for encoding in encodings:
            for length, count in LENGTHS.items():
                quoted = [f'"{sentence}"' for sentence in sentences[:count]]
                rows = (
                    [f"{quoted[0]},OK"] if count == 1 else [",".join(quoted[at : at + 2]) for at in range(0, count, 2)]
                )
                text = "prompt,completion\n" + "\n".join(rows) + "\n"
                found.append((language, encoding, length, text))
    return found
