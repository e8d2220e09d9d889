"""Short passages in five languages, written for the sample, so that language filters have something to find."""

# ruff: noqa: E501 (long lines are prose)
from __future__ import annotations

PASSAGES: dict[str, tuple[str, list[str]]] = {
    "de": ("Aus dem Dorf", [
        "Am frühen Morgen liegt der Nebel noch über den Wiesen, und man hört nur die Kühe auf der anderen Seite des Baches. Der Bäcker hat das Licht schon angemacht, und wer an seiner Tür vorbeigeht, riecht das frische Brot, das er gerade aus dem Ofen geholt hat.",
        "Die alte Mühle wurde vor vielen Jahren stillgelegt, doch das Rad dreht sich noch immer, wenn im Frühling genug Wasser kommt. Eine Gruppe von Freiwilligen hat das Dach repariert und im Erdgeschoss eine kleine Ausstellung über das Handwerk der Müller eingerichtet.",
        "Im Winter treffen sich die Nachbarn am Abend in der Schule, um gemeinsam zu singen. Es kommt nicht darauf an, ob jemand gut singen kann, sondern darauf, dass alle dabei sind und niemand den langen Abend allein verbringen muss.",
        "Wer mit dem Fahrrad in die Stadt fahren will, nimmt am besten den Weg am Fluss entlang. Er ist zwar etwas länger als die Straße, dafür gibt es keine Autos, und unterwegs kann man an mehreren Stellen baden oder einfach im Schatten sitzen.",
        "Der Lehrer erzählte den Kindern, wie die Leute früher ohne Strom gelebt haben. Sie gingen mit den Hühnern schlafen, wuschen die Wäsche am Brunnen und mussten im Herbst so viel Holz sammeln, dass es bis zum nächsten Frühjahr reichte.",
        "Einmal im Jahr wird auf dem Platz vor der Kirche ein Markt aufgebaut. Dort kann man Honig, Käse und Äpfel kaufen, aber auch Körbe und Töpfe, die von den Handwerkern aus der Umgebung in mühsamer Arbeit hergestellt worden sind.",
    ]),
    "fr": ("Au village", [
        "Le matin, quand la brume se lève sur les champs, on entend les cloches de l'église et le pas lent du facteur qui commence sa tournée. Il connaît tout le monde par son prénom et prend toujours le temps de demander des nouvelles de la famille.",
        "La vieille bibliothèque se trouve derrière la mairie, dans une maison que l'instituteur a laissée à la commune. Les habitants y apportent les livres qu'ils ont déjà lus, et chacun peut les emprunter sans payer, à condition de les rapporter un jour.",
        "Pendant l'été, les enfants passent leurs journées au bord de la rivière. Ils construisent des barrages avec des pierres, attrapent des écrevisses et rentrent le soir fatigués, les cheveux encore mouillés et les poches pleines de cailloux.",
        "Pour faire une bonne soupe, disait ma grand-mère, il faut surtout de la patience. On coupe les légumes en petits morceaux, on les laisse cuire doucement pendant deux heures et l'on ajoute le sel seulement à la fin, quand tout le monde est déjà assis.",
        "Le train ne s'arrête plus ici depuis longtemps, mais la gare a été transformée en atelier. Des artisans y réparent des meubles et apprennent aux jeunes à travailler le bois, ce qui a redonné un peu de vie à tout le quartier.",
        "Chaque automne, on organise une grande fête pour célébrer la fin des vendanges. Les voisins installent de longues tables dans la rue, chacun apporte un plat, et l'on danse jusqu'à ce que les musiciens demandent grâce.",
    ]),
    "es": ("Desde el pueblo", [
        "Por la mañana temprano, cuando el sol apenas asoma detrás de las montañas, los pescadores vuelven al puerto con las redes llenas. En el muelle los esperan las gaviotas y unas cuantas personas que quieren comprar el pescado más fresco.",
        "La abuela guardaba en un cajón todas las cartas que había recibido durante su vida. A veces nos leía alguna en voz alta, y nosotros escuchábamos en silencio las historias de unos parientes que vivían al otro lado del océano.",
        "En la plaza hay una fuente muy antigua de la que siempre sale agua fría. Los vecinos dicen que nunca se ha secado, ni siquiera en los años en que no llovió y hubo que traer el agua para los animales desde muy lejos.",
        "El panadero empieza a trabajar cuando todos los demás todavía duermen. Mezcla la harina con el agua y la levadura, deja reposar la masa y, mientras tanto, escucha en la radio las noticias de la noche anterior.",
        "Los domingos caminamos hasta el molino, que está a unos cuatro kilómetros del pueblo. El camino pasa entre olivos y almendros, y desde lo alto de la colina se puede ver el mar si el día está despejado.",
        "La maestra nueva llegó en septiembre con una maleta llena de libros. Desde entonces los niños leen cada tarde una hora, y hasta los padres se acercan algunas veces para escuchar cómo termina el cuento.",
    ]),
    "it": ("Dal paese", [
        "Ogni mattina il signor Berti apre la sua bottega alle sette in punto, sistema le sedie davanti alla porta e aspetta i primi clienti. Ripara orologi da più di quarant'anni e sostiene che nessuno di essi sia davvero impossibile da aggiustare.",
        "D'estate la gente si ritrova la sera in piazza, quando l'aria diventa finalmente più fresca. I bambini giocano a pallone, i vecchi discutono di politica e qualcuno porta una chitarra per suonare le canzoni di una volta.",
        "La strada che porta al lago attraversa un bosco di castagni e diventa così stretta che due automobili non possono passare insieme. Per questo molti preferiscono andare a piedi, anche se ci vuole quasi un'ora di cammino.",
        "Mia zia preparava il pane una volta alla settimana nel forno che si trova dietro la chiesa. Lo accendeva prima dell'alba, e verso mezzogiorno tutto il paese sentiva il profumo e veniva a chiederne un pezzo ancora caldo.",
        "Nella vecchia scuola è stato aperto un piccolo museo dove si possono vedere gli attrezzi dei contadini. Accanto a ogni oggetto c'è un foglio scritto a mano che spiega a che cosa serviva e chi lo aveva usato per ultimo.",
        "Quando il fiume si alza troppo, i pompieri avvertono le famiglie che abitano vicino alla riva. Tutti aiutano a portare i mobili al piano di sopra, e fino a oggi nessuno è mai rimasto senza un posto dove dormire.",
    ]),
    "pt": ("Da aldeia", [
        "De manhã cedo, o mercado já está cheio de gente que procura fruta, peixe e flores. As vendedoras conhecem os clientes pelo nome e guardam para eles os melhores tomates, que ainda cheiram à terra molhada da horta.",
        "O meu avô trabalhou durante muitos anos no farol que fica na ponta da ilha. Contava que, nas noites de tempestade, ninguém dormia, porque era preciso vigiar a luz e escutar se algum barco pedia ajuda.",
        "A biblioteca da aldeia funciona numa antiga carrinha que passa por aqui às quintas-feiras. As crianças esperam por ela junto à paragem, devolvem os livros da semana anterior e escolhem outros para levar para casa.",
        "Quando chega o outono, as famílias juntam-se para apanhar as castanhas e fazer uma grande fogueira. Come-se, canta-se e contam-se histórias até tarde, e ninguém se importa com o frio que desce da serra.",
        "A ponte de pedra foi construída há mais de trezentos anos e continua a ser o único caminho para a outra margem. No ano passado fecharam-na durante alguns meses para que os pedreiros pudessem reparar um dos arcos.",
        "O carteiro novo perdeu-se no primeiro dia, porque as ruas daqui não têm nomes nem números. Agora já sabe onde mora cada pessoa, e até leva recados de uma casa para a outra quando alguém lho pede.",
    ]),
}  # fmt: skip
