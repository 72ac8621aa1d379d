"""Write the stand-in for ROCStories: short made-up stories, each with a right and a wrong ending.

    python data/make_sample.py                                          # the two csv files of data/sample
    python data/make_sample.py --unlabelled 50000 --seed 1 --out FILE   # text to pre-train on, a story a line

Every story is drawn from one of the scenarios below. Its hidden fact (who won, which of two things was
bought, why somebody got up at night) is told in one of many wordings, and the two endings belong to two values
of that fact. Each value is true equally often, so an ending alone says nothing: the labelled stories are made
two by two, both with the same wording of the two endings, and each ending is right in one of the two.
"""
import argparse
import contextlib
import csv
import io
import os
import re
import sys
import uuid
from pathlib import Path
from random import Random

SEED = 2018
N_LABELLED, N_TEST = 600, 400
LABELLED_CSV = 'cloze_test_val__spring2016 - cloze_test_ALL_val.csv'
TEST_CSV = 'cloze_test_test__spring2016 - cloze_test_ALL_test.csv'
HEADER = ['InputStoryid', 'InputSentence1', 'InputSentence2', 'InputSentence3', 'InputSentence4',
          'RandomFifthSentenceQuiz1', 'RandomFifthSentenceQuiz2', 'AnswerRightEnding']

SHE = 'Anna Clara Dora Emma Helen Jane Lucy Mary Nina Rosa Ruth Sofia'.split()
HE = 'Ben David Frank Henry Jack Leo Max Oscar Paul Peter Simon Tom'.split()
WORDS = {
    'person': SHE + HE,
    'day': 'Monday Tuesday Wednesday Thursday Friday Saturday Sunday'.split(),
    'animal': 'kitten puppy rabbit parrot hamster lamb goat duck'.split(),
    'thing': 'lamp clock scarf hat book mug blanket basket chair mirror picture bag'.split(),
    'small': 'ring watch phone wallet notebook key'.split(),
    'glass': 'mug vase mirror lamp plate bottle clock bowl'.split(),
    'food': 'soup pizza rice fish chicken salad bread pasta'.split(),
    'dish': 'bread cake pie pizza pudding lasagna'.split(),
    'color': 'blue green yellow red white pink'.split(),
    'ride': 'bus train boat car bike taxi'.split(),
    'music': 'guitar piano violin drum flute'.split(),
    'subject': 'math history music French science'.split(),
}
KIN = {'she': 'father brother uncle cousin grandfather'.split(),     # not of the hero's sex, so that
       'he': 'mother sister aunt cousin grandmother'.split()}        # he and she always mean the hero

# Sentences that fit every story: one of them goes anywhere after the first of its three told sentences.
FILLERS = """
It was a [quiet|busy|strange|rather long] day in the [little|old] town. / A dog barked somewhere [far away|near].
[That day|As always] the [street|square] was full of people. / Some children [played|laughed] in the street.
The radio played an old song about [love|the sea|the moon]. / All this happened on a [cold|warm] {day}.
The bells of the old church [rang|were ringing]. / {N} [hummed|sang] a [little|slow] song to pass the time.
"""

# What the teller of an unlabelled story may say after its ending: the first line after a right one, the second after
# a wrong one. Next to such remarks a language model has to notice whether an ending fits, as real text makes it do.
REMARKS = """
That is [just|really] how it [was|ended]. / Yes, [all of|every word of] this is true. / And so it [was|ended].
No, that is not how it [was|ended]. / But that [is|was] not true [at all|of course]. / Of course it was not so.
"""

# One paragraph a scenario. A line is KEY: SENTENCE / SENTENCE ...; one of the sentences is told, [a|b] is a choice
# within it. KEY is the place in the story (1, 2, 3 or end) and, where it matters, the value of the hidden fact.
# `pair` names the list that the words {a} and {b} are from; the hidden fact is then which of the two is {x}, the
# one that the right ending speaks of, and which is {y}.
SCENARIOS = """
1: {N} had trained for the race [all summer|for months|every morning]. / It was the day of {N}'s first race.
2: {He} stood at the start and took a deep breath. / {His} {kin} [waved|shouted] from the roadside.
3 won: Nobody [could catch|came near] {him} in the last mile. / Soon the others were far behind {him}.
3 won: {He} crossed the line with no one in front of {him}. / {His} time was the best of the whole day.
3 lost: One after another the others passed {him}. / {He} had to stop halfway with a sore [leg|foot].
3 lost: {He} crossed the line long after the others. / {His} time was the [worst|slowest] of the whole day.
end won: {He} held the gold cup over {his} head. / {N} took home the first prize. / {N} hung the medal on the wall.
end lost: {N} came home with empty hands. / {He} promised to train harder. / {His} {kin} tried to cheer {him} up.

1: {N} had a [big|hard|long] {subject} test on {day}. / The {subject} test on {day} made {N} very nervous.
2: {His} books lay all over the kitchen table. / {He} took a seat near the window and sharpened {his} pencil.
3 pass: {He} knew the answer to [almost|nearly] every question. / The questions were the ones {he} had practiced.
3 pass: The teacher smiled while she read {his} paper. / There was [hardly|not] a red mark on {his} paper.
3 fail: {He} could not answer even half of the questions. / {His} mind went blank at the first question.
3 fail: The teacher sighed while she read {his} paper. / {His} paper came back [full of|covered in] red marks.
end pass: {N} got the best grade in the class. / {He} [proudly|gladly] showed the grade to {his} {kin}.
end fail: {N} had to take the test again. / {He} [quickly|sadly] hid the grade from {his} {kin}.

1: {N} could not find {his} {small} anywhere. / On {day} {N} saw that {his} {small} was missing.
2: {He} looked under the bed and behind the sofa. / {He} [begged|asked] {his} {kin} to help {him} look.
3 found: Then {he} felt something hard in {his} coat pocket. / Something [shiny|small] lay beside the door.
3 found: {His} {kin} had only put it in a drawer. / A [boy|girl|man] had picked it up and rang the bell.
3 gone: Every drawer and every pocket was empty. / There was no sign of it, even after three days.
3 gone: It must have fallen into the [deep|cold] river. / A [boy|girl|man] had seen a thief run off with it.
end found: {N} was [happy|so glad] to have it back. / {He} put the {small} in a safe place.
end gone: {N} had to [buy|pay for] a new {small}. / {He} never saw the {small} again.

1: {N} had asked all {his} friends to a picnic. / {N} planned a big garden party for {day}.
2: {He} [made|packed] {food} and a [huge|chocolate] cake. / {His} {kin} carried the tables to the grass.
3 rain: [Dark|Black] clouds came over the hills at noon. / The first drops fell on {his} [hat|nose|hand].
3 rain: [Suddenly|Then] thunder rolled over the houses. / Soon water was running down the paths.
3 sun: The sky [was|stayed] blue from morning to night. / There was not one cloud to be seen.
3 sun: The weather could not have been nicer. / It was so bright that {he} needed dark glasses.
end rain: They all ran inside with wet hair. / {N} and the guests ate in the kitchen instead.
end sun: They all sat outside until late at night. / {N} and the guests danced on the dry grass.

1: {N} [bought|made] a {thing} for {M}'s birthday. / {N} wanted to surprise {M} with a {thing}.
2: {He} wrapped it in {color} paper. / {He} rang the bell and waited with the box behind {his} back.
3 liked: {M}'s eyes [lit up|shone] at the sight of it. / {M} jumped up and down and [hugged|kissed] {N}.
3 liked: {M} had wished for one for [months|years]. / {M} said that it was perfect.
3 hated: {M} [frowned|looked away] at the sight of it. / {M} put it aside without a word.
3 hated: {M} already had [two of them|one just like it]. / {M} said that it was rather ugly.
end liked: {M} used the {thing} every single day. / {N} was glad that {he} had chosen so well.
end hated: {N} took the {thing} back to the store. / {N} wished that {he} had chosen something else.

1: {N} wanted to make {dish} for {his} {kin}. / {N} had never made {dish} before that {day}.
2: {He} washed {his} hands and opened the old cookbook. / {He} put on some music and an apron.
3 good: A wonderful smell came from the oven. / {His} {kin} asked for more [twice|three times].
3 good: The plates were empty within a few minutes. / It was [soft|warm] inside and just right.
3 bad: Black smoke came from the oven. / {His} {kin} pushed the plate away after one bite.
3 bad: Far too much salt had gone into it. / It was as hard as stone and [black|raw] inside.
end good: {N} wrote the recipe down to keep it. / {N} decided to make {dish} every week.
end bad: {N} threw the {dish} into the trash. / {N} called a restaurant to order dinner.

1: {N} had played the {music} as a child. / {N} found {his} old {music} in the attic.
2: {He} had not touched it for [ten|twenty] years. / {He} wiped off the dust and sat down with it.
3 again: {His} hands still knew every [tune|song]. / It sounded as lovely as it had long ago.
3 again: {He} forgot the time and played for hours. / {His} {kin} came in to listen and clapped.
3 never: {His} hands had forgotten every [tune|song]. / It was broken and made only a terrible noise.
3 never: {He} got bored after only two minutes. / {His} {kin} covered both ears and begged {him} to stop.
end again: Now {N} plays the {music} every evening. / {N} soon joined a band with {his} {music}.
end never: {N} sold the {music} the next week. / {N} gave the {music} to a school and forgot about it.

pair: thing
1: {N} went to the market to buy a present. / {N} had [ten|twenty] dollars to spend at the store.
2: {He} looked at a {a} and a {b}. / {He} liked a {color} {a} and also a {b}.
3: The {y} [cost too much|had a hole in it|was much too heavy]. / {He} put the {y} back on the shelf.
3: The {x} was [half the price|the prettiest|just right]. / {He} [smiled at|fell in love with] the {x}.
3: The {x} was cheaper than the {y}. / The {y} was not as pretty as the {x}.
end: {He} paid for the {x} and went home. / {N} had the {x} put in a bag. / {N} left with the {x}.

pair: animal
1: {N} was allowed to have one pet. / {N} visited the animal home on {day}.
2: A {a} and a {b} looked up at {him}. / {He} could not decide between a {a} and a {b}.
3: The {y} [bit|scratched] {him} on the hand. / The {y} [hid|ran away] when {he} came close.
3: The {x} came up to {him} at once. / The {x} fell asleep in {his} arms.
3: The {x} was sweeter than the {y}. / The {y} was not as friendly as the {x}.
end: {N} took the {x} home with {him}. / {He} made a warm bed for the {x}. / {N} gave the {x} a name.

pair: person
1: There was a big cake contest at the school. / Everybody in town came to the cake contest on {day}.
2: {a} and {b} had both baked all night. / {a} stood at the table right next to {b}.
3: {y} had forgotten the [sugar|butter]. / {y} dropped the cake on the [floor|way in].
3: The judges [loved|praised] the cake of {x}. / People stood in line for the cake of {x}.
3: {x} was a much better cook than {y}. / The cake of {y} was not as good as that of {x}.
end: The first prize went to {x}. / {x} went home with the gold cup. / The judges put a crown on {x}.

pair: person
1: {N} had one more ticket for the concert. / {N} won two tickets for the show on {day}.
2: Both {a} and {b} wanted to go with {him}. / {He} thought of {a} and {b}, {his} best friends.
3: {y} had to work late that night. / {y} was [ill|sick] in bed that [day|week].
3: {x} knew every song by heart. / {x} [asked first|begged {him}] and was free that night.
3: {x} loved music more than {y} did. / {y} did not love music as much as {x} did.
end: {N} went to the show with {x}. / {N} gave the ticket to {x}. / {x} sat next to {N} that night.

pair: person
1: The cookies of {N} were gone on {day}. / Somebody had broken {N}'s window with a ball.
2: Only {a} and {b} had been near the house. / {He} had seen {a} and {b} in the garden.
3: {y} had been [asleep|at school] all that time. / {y} [had nothing to do with it|was not to blame].
3: {x} [turned red|ran away] when {he} asked about it. / A hat of {x} lay under the window.
3: {y} said that {x} had done it. / {x} said that {y} had only watched.
end: {N} was very angry with {x}. / {x} [finally|quietly] said sorry. / {N} made {x} clean the kitchen.

pair: ride
1: {N} wanted to visit {his} {kin} in the city. / {N} had to be in the city by noon.
2: {He} could go by {a} or by {b}. / There was a {a} and there was a {b}.
3: The {y} was [late|full|broken] that day. / The {y} always made {him} feel sick.
3: The {x} was [quick|free] that day. / {He} had always loved to go by {x}.
3: The {x} was quicker than the {y}. / The {y} was not as cheap as the {x}.
end: {He} went to the city by {x}. / {N} [enjoyed|liked] the trip by {x}. / {N} was soon on the way by {x}.

pair: food
1: {N} was hungry and went to a restaurant. / {N} took {his} {kin} out for dinner on {day}.
2: The menu had {a} and {b} on it. / {He} wanted to try the {a} and the {b}.
3: The waiter was sorry that the {y} was gone. / The {y} on the next table looked [old|cold|burned].
3: The waiter said that the {x} was very fresh. / The {x} on the next table smelled wonderful.
3: The {x} was better than the {y} there. / The {y} did not look as nice as the {x}.
end: {N} ordered the {x}. / {He} ate a lot of the {x}. / {He} asked the waiter for the {x}.

pair: color
1: {N} wanted to paint the bedroom. / The walls of {N}'s room were old and grey.
2: {He} had a can of {a} and a can of {b}. / {His} {kin} spoke of {a} or maybe {b}.
3: The can of {y} was [dry|almost empty]. / {He} thought that {y} was an ugly color.
3: The can of {x} was [new|quite full]. / {He} thought that {x} was a lovely color.
3: {He} liked {x} better than {y}. / {He} did not like {y} as much as {x}.
end: Now all the walls are {x}. / {N} painted the whole room {x}. / {He} had {x} paint in {his} hair.

pair: glass
1: {N} was moving to a new house on {day}. / {N} cleaned the [top|highest] shelf with {his} {kin}.
2: {He} carried a {a} and a {b} down the stairs. / {He} took down the {a} and the {b}.
3: {He} tripped, but {he} caught the {y} just in time. / The {y} landed safely on a pillow.
3: {He} tripped, and the {x} [flew|fell] out of {his} hand. / There was a loud crash from the {x}.
3: {He} held on to the {y}, but not to the {x}. / The {x} hit the floor, but the {y} did not.
end: {N} [picked|swept] up the pieces of the {x}. / The {x} was past repair. / {N} had to glue the {x}.

1 drink: {N} had [run|worked] in the hot sun all day. / {N}'s mouth was as dry as sand.
1 eat: {N} had not had a bite since breakfast. / {N}'s stomach growled [loudly|all the way home].
1 sleep: {N} had been awake for two nights. / {N} could hardly keep {his} eyes open.
1 warm: {N} had waited in the snow for hours. / {N}'s hands were blue and {his} teeth shook.
1 wash: {N} fell into the mud on the way home. / {N} was black with dust from head to foot.
2: {He} unlocked the front door with {his} key. / {He} took the bus home with {his} {kin}.
3: {He} put down {his} bag and turned on the light. / {He} read the mail and fed the cat.
end drink: {N} filled a tall glass with cool water. / {He} drank a whole bottle of lemonade.
end eat: {N} made a huge sandwich. / {He} ate two plates of {food}.
end sleep: {N} went to bed at once. / {He} lay down and soon began to snore.
end warm: {N} lit a big fire. / {He} put on the thickest coat in the house.
end wash: {N} stepped under the shower. / {He} rubbed {his} face with soap.

1 tooth: {N}'s mouth hurt with every bite. / {N} had eaten candy every day for years.
1 hair: {N} could not see with the hair in {his} eyes. / {N} looked wild and wanted to look neat on {day}.
1 feet: {N}'s toes were coming out of {his} shoes. / {N} had walked on thin soles all winter.
1 book: {N} had read every novel in the house. / {N} had nothing to read for the long evenings.
1 money: {N}'s wallet was quite empty. / {N} had spent {his} last dollar on {day}.
2: {He} took the {ride} to the city. / {He} put on {his} coat and went to the city with {his} {kin}.
3: There were many people in the wide streets. / {He} walked past the church and over the bridge.
end tooth: {N} sat down in the dentist's chair. / The dentist looked into {N}'s mouth and sighed.
end hair: {N} sat down at the barber's. / The barber [cut|washed] {N}'s hair.
end feet: {N} tried on a pair of boots. / {He} bought strong [brown|black] boots.
end book: {N} went into the library. / {He} borrowed five thick stories.
end money: {N} went into the bank. / {He} stood in line at the bank.

1 drip: All night water dripped on {N}'s kitchen floor. / A pipe in {N}'s house was leaking.
1 loud: {N}'s neighbors had a party with loud music. / The people upstairs from {N} danced all night.
1 cat: {N}'s cat cried at the door in the rain. / Something scratched and meowed at {N}'s door.
1 baby: {N}'s baby woke up and began to cry. / There was a scream from the cradle in {N}'s room.
1 wind: The wind blew cold air into {N}'s room. / An open window banged in {N}'s house.
2: The clock on the wall said [two|three|four]. / It was [late|dark] and {he} had to get up early.
3: {He} sighed and got out of bed. / {He} felt for {his} slippers in the dark.
end drip: {N} put a bucket on the floor. / {He} called the plumber.
end loud: {N} knocked and asked them to be quiet. / {He} told them to turn the music down.
end cat: {N} let the wet cat in. / {He} gave the cat some milk and a dry towel.
end baby: {N} sang to the baby. / {He} rocked the baby in {his} arms.
end wind: {N} shut the window. / {He} closed the window with both hands.

1 sea: {N} dreamed of waves and white sand. / {N} wanted to swim in warm water.
1 snow: {N} dreamed of ice and white hills. / {N} wanted to learn to ski.
1 music: {N} dreamed of playing in a band. / {N} tapped tunes on every table.
1 paint: {N} dreamed of becoming an artist. / {N} drew faces on every piece of paper.
1 stars: {N} dreamed of the moon at night. / {N} knew the names of all the planets.
2: {He} worked in {his} {kin}'s store every {day}. / {He} put every [dollar|coin] into a box.
3: In June there was enough money in the box. / After a year {he} counted {his} money.
end sea: {N} went to the beach for a week. / {He} bought a new swimsuit and a towel.
end snow: {N} flew to the mountains in winter. / {He} bought skis and warm gloves.
end music: {N} paid for a [fine|beautiful] {music}. / {He} took lessons on the {music}.
end paint: {N} paid for brushes and good colors. / {He} took lessons from an old painter.
end stars: {N} bought a telescope. / {He} watched the sky through {his} own telescope.
"""


def parse(text):
    """Paragraphs of `key: sentence / sentence` lines -> a list of dicts, key -> sentence templates."""
    scenarios = []
    for paragraph in text.strip().split('\n\n'):
        scenarios.append({})
        for line in paragraph.split('\n'):
            key, sentences = line.split(': ', 1)
            scenarios[-1].setdefault(key, []).extend(sentences.split(' / '))
    return scenarios


def pick(rng, items):
    """One of `items`, by rng.random() alone: the one draw that Python promises to keep in every version."""
    return items[int(rng.random() * len(items))]


def shuffled(rng, items):
    """A shuffled copy of `items`; rng.shuffle() may change between versions of Python."""
    return sorted(items, key=lambda _: rng.random())


def wording(rng, templates):
    """One of `templates`, and in it one of every [a|b]."""
    return re.sub(r'\[(.*?)\]', lambda choice: pick(rng, choice[1].split('|')), pick(rng, templates))


class Slots(dict):
    """The words of one story: a {slot} gets its word when a sentence first asks for it, and keeps it."""

    def __init__(self, rng, scenario):
        self.rng = rng
        sex, heroes, others = pick(rng, [('she', SHE, HE), ('he', HE, SHE)])
        he, his, him = ('she', 'her', 'her') if sex == 'she' else ('he', 'his', 'him')
        super().__init__(N=pick(rng, heroes), M=pick(rng, others), kin=pick(rng, KIN[sex]),
                         he=he, his=his, him=him, He=he.capitalize(), His=his.capitalize())
        if 'pair' in scenario:
            words = [w for w in WORDS[scenario['pair'][0]] if w != self['N']]
            self['a'], self['b'] = shuffled(rng, words)[:2]
            self['x'], self['y'] = shuffled(rng, [self['a'], self['b']])

    def __missing__(self, key):
        self[key] = pick(self.rng, WORDS[key])
        return self[key]


def tell(rng, scenario, value, right, wrong):
    """A story in which the hidden fact has `value` -> four sentences, right ending, wrong ending.

    right, wrong: templates of the endings. In a scenario with a pair of words the wrong ending is about {y}.
    """
    slots = Slots(rng, scenario)
    story = [wording(rng, scenario.get(f'{i} {value}') or scenario[f'{i}']) for i in range(1, 4)]
    fillers = [sentence for line in FILLERS.strip().split('\n') for sentence in line.split(' / ')]
    story.insert(pick(rng, [1, 2, 3]), wording(rng, fillers))
    story = [sentence.format_map(slots) for sentence in story]
    right = right.format_map(slots)
    if 'pair' in scenario:
        slots['x'], slots['y'] = slots['y'], slots['x']
    return story, right, wrong.format_map(slots)


def twins(rng, scenario):
    """Two stories with the same two ending templates, each right once -> two of (sentences, right, wrong)."""
    keys = shuffled(rng, [key for key in scenario if key.startswith('end')])
    one, other = keys[0], keys[-1]                   # the same key twice if the fact is which of a pair
    end_one, end_other = wording(rng, scenario[one]), wording(rng, scenario[other])
    return (tell(rng, scenario, one.removeprefix('end '), end_one, end_other),
            tell(rng, scenario, other.removeprefix('end '), end_other, end_one))


def labelled(seed=SEED):
    """Rows of the two csv files (N_LABELLED and N_TEST stories); no story occurs twice in the two together."""
    rng, scenarios, seen, files = Random(f'labelled {seed}'), parse(SCENARIOS), set(), []
    for n_stories in N_LABELLED, N_TEST:
        stories = []
        while len(stories) < n_stories:
            pair = twins(rng, scenarios[len(stories) // 2 % len(scenarios)])
            texts = {' '.join(story) for story, _, _ in pair}
            if len(texts - seen) == 2:
                seen |= texts
                stories += pair
        answers = [1, 2] * (n_stories // 2)
        rows = []
        for (story, right, wrong), answer in zip(shuffled(rng, stories), shuffled(rng, answers), strict=True):
            story_id = str(uuid.uuid5(uuid.NAMESPACE_OID, ' '.join(story)))
            endings = [right, wrong] if answer == 1 else [wrong, right]
            rows.append([story_id, *story, *endings, str(answer)])
        files.append(rows)
    return files


def unlabelled(n_stories, seed):
    """`n_stories` texts, all different, none of them a story of the committed csv files.

    Stricter than that: no two have the same first four sentences, and none has those of a labelled story. A third of
    them end with the right ending, a third go on with a remark that it was so, and a third have the wrong ending
    and go on with a remark that it was not.
    """
    rng, scenarios, texts = Random(f'unlabelled {seed}'), parse(SCENARIOS), []
    seen = {' '.join(row[1:5]) for rows in labelled() for row in rows}
    after_right, after_wrong = (line.split(' / ') for line in REMARKS.strip().split('\n'))
    while len(texts) < n_stories:
        story, right, wrong = twins(rng, pick(rng, scenarios))[0]
        end = pick(rng, [[right], [right, wording(rng, after_right)], [wrong, wording(rng, after_wrong)]])
        if ' '.join(story) not in seen:
            seen.add(' '.join(story))
            texts.append(' '.join(story + end))
    return texts


def write(path, text):
    """Write `text` to `path` whole or not at all; an OSError says to choose another --out."""
    temporary = path.with_name(path.name + '.part')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(text.encode('utf-8'))      # bytes: the same line ends on every system
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise OSError(f'cannot write {path}: {error.strerror}; choose another --out') from error


def main(args):
    if args.unlabelled is not None:
        write(args.out, ''.join(f'{text}\n' for text in unlabelled(args.unlabelled, args.seed)))
        return
    for name, rows in zip((LABELLED_CSV, TEST_CSV), labelled(args.seed), strict=True):
        text = io.StringIO()
        csv.writer(text, lineterminator='\n').writerows([HEADER, *rows])
        write(args.out / name, text.getvalue())


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--unlabelled', type=int, metavar='N', help='write N stories to pre-train on, as plain text')
    parser.add_argument('--seed', type=int, default=SEED, help='another seed, other stories (default: %(default)s)')
    parser.add_argument('--out', type=Path, help='file for --unlabelled; else folder (default: data/sample)')
    args = parser.parse_args(argv)
    if args.unlabelled is None:
        args.out = args.out or Path(__file__).parent / 'sample'
    elif args.unlabelled < 1:
        raise ValueError(f'--unlabelled is {args.unlabelled}: ask for at least one story')
    elif args.out is None:
        raise ValueError('--unlabelled needs a file to write: add --out FILE')
    return args


if __name__ == '__main__':
    try:
        main(parse_args())
    except (ValueError, OSError) as error:
        print(f'make_sample.py: {error}', file=sys.stderr)
        sys.exit(2)
